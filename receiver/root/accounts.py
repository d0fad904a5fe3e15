"""An app's users and directories: root makes them, gives them to their owners, and removes the files before the users.

A uid is freed only when no file on the disk belongs to it, so no later app inherits a file (threat row 65).
"""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass

from receiver.errors import HostFault
from receiver.paths import PROXY_GROUP, SHIPIT_USER, AppPaths, app_user, build_user
from receiver.system import disk
from receiver.system.run import run

NOLOGIN = "/usr/sbin/nologin"
# useradd(8) exits with 9 when the name is taken.
TAKEN = 9


@dataclass(frozen=True)
class Ids:
    """The numeric ids of an app's users and group."""

    app: int
    app_group: int
    build: int


def create(paths: AppPaths) -> bool:
    """Make the users and directories of an app, or repair owners and modes; True when the app was new.

    Raises HostFault if a user of that name exists that shipit did not make.
    """
    ids = make_users(paths)
    shipit = pwd.getpwnam(SHIPIT_USER)
    with disk.opened_dir(paths.layout.apps) as apps:
        new = disk.make_dir(apps, paths.name, 0o755, 0, 0)
        with disk.opened_dir(paths.name, at=apps) as home:
            for path, mode, uid, gid in (
                (paths.repo, 0o700, shipit.pw_uid, shipit.pw_gid),
                (paths.releases, 0o2751, shipit.pw_uid, ids.app_group),
                (paths.slugs, 0o755, 0, 0),
                (paths.config, 0o700, 0, 0),
                (paths.data, 0o750, ids.app, ids.app_group),
                (paths.cache, 0o700, ids.build, ids.app_group),
            ):
                disk.make_dir(home, path.name, mode, uid, gid)
            os.fsync(home)
        os.fsync(apps)
    make_socket_dir(paths, ids)
    return new


def make_socket_dir(paths: AppPaths, ids: Ids) -> None:
    """Make /run/shipit/APP; at every boot the app's engine makes it again."""
    proxy = grp.getgrnam(PROXY_GROUP).gr_gid
    with disk.opened_dir(paths.layout.run) as run_dir:
        with suppress(FileNotFoundError):
            if os.stat(paths.name, dir_fd=run_dir, follow_symlinks=False).st_uid != ids.app:
                # Older versions kept files of root's under names that an app may have.
                disk.remove_tree(paths.sockets)
        disk.make_dir(run_dir, paths.name, 0o2750, ids.app, proxy)


def make_users(paths: AppPaths) -> Ids:
    """app-APP with a group of its own, and build-APP in that group: the app's processes read what the build made."""
    app, build = app_user(paths.name), build_user(paths.name)
    common = ["useradd", "--system", "--no-create-home", "--shell", NOLOGIN]
    for name, home, group in (
        (app, paths.data, ["--user-group"]),
        (build, paths.cache, ["--no-user-group", "--gid", app]),
    ):
        comment = f"shipit app {paths.name}"
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            # Alone, useradd(8) waits 15 s for /etc/passwd and gives up; many apps may be made at once.
            with disk.locked(disk.roots_dir(paths.layout.roots, 0o711) / "accounts.lock", wait=True):
                done = run([*common, "--comment", comment, "--home-dir", home, *group, name], check=False)
            if done.code not in (0, TAKEN):
                raise HostFault(
                    f"The user {name} could not be made.", details=done.err.splitlines()[-5:], hint="shipit doctor"
                ) from None
        else:
            if entry.pw_dir != str(home):
                raise HostFault(
                    f"A user {name} exists that shipit did not make.", hint="Choose another name for the app."
                )
    return ids_of(paths)


def make_image_stores(paths: AppPaths, ids: Ids) -> None:
    """Make the directories in which podman keeps the app's images and its build cache. Repeatable."""
    with disk.opened_dir(paths.layout.state) as state:
        disk.make_dir(state, paths.layout.images.name, 0o755, 0, 0)
    with disk.opened_dir(paths.layout.images) as images:
        disk.make_dir(images, paths.images.name, 0o700, ids.app, ids.app_group)
        disk.make_dir(images, paths.image_builds.name, 0o700, ids.build, ids.app_group)


def ids_of(paths: AppPaths) -> Ids:
    """The app's uids and gid; raises HostFault when its users are missing."""
    try:
        app, build = pwd.getpwnam(app_user(paths.name)), pwd.getpwnam(build_user(paths.name))
    except KeyError as error:
        raise HostFault(f"The users of {paths.name} are missing.", hint=f"shipit doctor {paths.name}") from error
    return Ids(app.pw_uid, app.pw_gid, build.pw_uid)


def destroy(paths: AppPaths) -> None:
    """Remove all files of an app, then its users. Only when no process of it runs any more. Repeatable after a
    crash."""
    disk.remove_tree(paths.sockets)
    disk.remove_tree(paths.images)
    disk.remove_tree(paths.image_builds)
    disk.remove_tree(paths.dir)
    for name in (build_user(paths.name), app_user(paths.name)):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        # Its group has the same name and no other member by now, so userdel removes it, too (USERGROUPS_ENAB).
        run(["userdel", name])
