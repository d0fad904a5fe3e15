"""The users and groups of a server: `shipit`, and the group that may connect to the apps' sockets."""

from __future__ import annotations

import grp
import pwd
import re
import time

from receiver.errors import HostFault
from receiver.gate.ask import COMMAND
from receiver.paths import ACME_USER, PROXY_GROUP, SHIPIT_USER, Layout
from receiver.setup.report import Step
from receiver.system import family
from receiver.system.run import run


def ensure(layout: Layout, step: Step) -> None:
    """Make the accounts and group memberships that are missing."""
    if not user_exists(SHIPIT_USER):
        # With `*` no password is valid, but the account is not locked: sshd refuses locked accounts, even with a key.
        words = ["--system", "--user-group", "--no-create-home", "--password", "*", "--shell", COMMAND]
        run(["useradd", *words, "--home-dir", layout.home, "--comment", "shipit receiver", SHIPIT_USER])
        step.did(f"user {SHIPIT_USER}")
    if not user_exists(ACME_USER):
        words = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        run(["useradd", *words, "--home-dir", layout.acme, "--comment", "shipit certificates", ACME_USER])
        step.did(f"user {ACME_USER}")
    if not _group_exists(PROXY_GROUP):
        run(["groupadd", "--system", PROXY_GROUP])
        step.did(f"group {PROXY_GROUP}")
    wanted = {PROXY_GROUP: [SHIPIT_USER, nginx_user(layout)], "systemd-journal": [SHIPIT_USER]}
    for group, users in wanted.items():
        for user in users:
            if _group_exists(group) and user_exists(user) and user not in grp.getgrnam(group).gr_mem:
                run(["usermod", "--append", "--groups", group, user])


def shell() -> str:
    """The login shell of `shipit`, through which sshd runs every command."""
    return pwd.getpwnam(SHIPIT_USER).pw_shell


def set_shell(program: str, step: Step) -> None:
    """Set the login shell of `shipit`. `--uninstall` and older versions leave another one."""
    if shell() != program:
        run(["usermod", "--shell", program, SHIPIT_USER])
        step.did(f"the shell of {SHIPIT_USER} is {program}")


def nginx_user(layout: Layout) -> str:
    """The user of nginx's workers (its `user` directive; Debian's default is www-data)."""
    try:
        text = (layout.root / "etc/nginx/nginx.conf").read_text()
    except FileNotFoundError:
        return "www-data"
    found = re.search(r"^\s*user\s+([A-Za-z0-9_.-]+)[\s;]", text, re.MULTILINE)
    return found[1] if found else "www-data"


def app_accounts(layout: Layout) -> list[pwd.struct_passwd]:
    """The users of apps, recognised by their names and a home below the state directory."""
    inside = f"{layout.state}/"
    return [
        user
        for user in pwd.getpwall()
        if user.pw_name.startswith(("app-", "build-")) and user.pw_dir.startswith(inside)
    ]


def remove(layout: Layout, step: Step) -> None:
    """Remove all of shipit's users and groups, and end the processes that still run as one of them (a push, a
    drain)."""
    # build-APP before app-APP, because it is in that one's group.
    users = sorted(app_accounts(layout), key=lambda user: user.pw_name, reverse=True)
    users += [user for user in pwd.getpwall() if user.pw_name in (SHIPIT_USER, ACME_USER)]
    deadline = time.monotonic() + 10
    while left := family.of_users(user.pw_uid for user in users):
        family.kill(left)
        if time.monotonic() > deadline:
            raise HostFault(f"Processes {sorted(left)} do not end.", holds="The accounts and files are still there.")
        time.sleep(0.02)
    for user in users:
        run(["userdel", user.pw_name])
        if _group_exists(user.pw_name):
            run(["groupdel", user.pw_name])
    step.did(f"{len(users)} users")
    if _group_exists(PROXY_GROUP):
        run(["groupdel", PROXY_GROUP])


def user_exists(name: str) -> bool:
    """Whether the system knows this user."""
    return any(user.pw_name == name for user in pwd.getpwall())


def _group_exists(name: str) -> bool:
    return any(group.gr_name == name for group in grp.getgrall())
