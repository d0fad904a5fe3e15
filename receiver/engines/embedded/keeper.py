"""`shipit-supervisord`: keeps supervisord running where there is no init system, and leaves no process behind.

The children of a killed supervisord live on, and the next supervisord would start them a second time. The keeper is
their subreaper (prctl(2)): when supervisord dies, everything it had started becomes the keeper's child and is killed;
only then supervisord starts again. When the keeper itself is killed, supervisord gets SIGTERM and stops all its
programs. As a container's first process (`shipit-supervisord run`) it also collects zombies.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from receiver.engines.embedded import supervisord
from receiver.paths import PREFIX, PROXY_GROUP, Layout
from receiver.system import disk, family

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# In the environment of everything below supervisord except the apps; marks what a killed keeper left behind.
MARK = "SHIPIT_SUPERVISED=1"
STOP_TIMEOUT = 3700.0  # an app's drain may be an hour; supervisord ends as soon as the last process has
USAGE = "Usage: shipit-supervisord start | run | stop | status\n"


def main(argv: list[str]) -> int:
    """`start` runs it in the background and waits until supervisord and the agent answer; `run` stays; `stop` ends it
    with all processes."""
    layout = Layout()
    if argv not in (["start"], ["run"], ["stop"], ["status"]):
        sys.stderr.write(USAGE)
        return 2
    if os.geteuid():
        sys.stderr.write(" !     This needs root: shipit-supervisord\n")
        return 77
    layout.run.mkdir(mode=0o755, exist_ok=True)
    if argv == ["status"]:
        pid = keeper_pid(layout)
        print(f"running (pid {pid})" if pid else "not running")
        return 0 if pid else 3
    if argv == ["stop"]:
        return stop(layout)
    return start(layout) if argv == ["start"] else run(layout)


def lock_path(layout: Layout) -> Path:
    return layout.run / "keeper.lock"


def take_lock(layout: Layout) -> int | None:
    """The keeper's lock; None if another keeper holds it. The lock ends with its process."""
    fd = os.open(lock_path(layout), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def keeper_pid(layout: Layout) -> int:
    """The pid of the living keeper, 0 if there is none."""
    fd = take_lock(layout)
    if fd is not None:
        os.close(fd)
        return 0
    return int(lock_path(layout).read_text() or 0)


def start(layout: Layout) -> int:
    """Start in the background; returns when supervisord answers. Nothing happens if it runs already."""
    if keeper_pid(layout):
        return 0
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            log = os.open(layout.log / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            os.closerange(3, 1024)
            os._exit(run(layout))
        os._exit(0)
    os.wait()
    # Wait for the agent's socket, too: a push may come at once.
    wanted = [path for path in sockets(layout) if (layout.supervisor / f"shipit-{path.stem}.conf").exists()]
    deadline = time.monotonic() + 20
    while not (supervisord.Supervisor(layout).answers() and all(path.exists() for path in wanted)):
        if time.monotonic() > deadline:
            sys.stderr.write(" !     Not everything has started.\n       (tail /var/log/shipit/*.log)\n")
            return 71
        time.sleep(0.05)
    return 0


def sockets(layout: Layout) -> list[Path]:
    return [layout.agent_socket]


def stop(layout: Layout) -> int:
    pid = keeper_pid(layout)
    if not pid:
        return 0
    os.kill(pid, signal.SIGTERM)
    while keeper_pid(layout):
        time.sleep(0.05)
    return 0


def run(layout: Layout) -> int:
    """Keep supervisord running until SIGTERM or SIGINT. Exit code 0 then, 75 if another keeper lives."""
    lock = take_lock(layout)
    if lock is None:
        sys.stderr.write(" !     shipit-supervisord runs already.\n")
        return 75
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    clear_leftovers(layout)
    disk.remove_tree(layout.ran)
    stopping: list[int] = []
    child = 0

    def forward(number: int, frame: FrameType | None) -> None:
        stopping.append(number)
        if child:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    pause = 0.5
    while not stopping:
        prepare(layout)
        begun = time.monotonic()
        child = spawn(layout)
        wait_for(child)
        child = 0
        family.kill_all_below(os.getpid())
        if stopping:
            break
        pause = 0.5 if time.monotonic() - begun > 60 else min(pause * 2, 30)
        print(f"supervisord ended; all it had started is gone; starting again in {pause:g} s", flush=True)
        time.sleep(pause)
    family.kill_all_below(os.getpid())
    return 0


def spawn(layout: Layout) -> int:
    """Start supervisord from the version that is current now; returns its pid."""
    program = (layout.root / PREFIX.relative_to("/")).resolve() / "bin/supervisord"
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        mark, _, value = MARK.partition("=")
        env = {"PATH": PATH, "LANG": "C.UTF-8", mark: value}
        words = [str(program.with_name("python")), "-I", str(program), "-n", "-c", str(supervisord.config(layout))]
        os.execve(words[0], words, env)
    finally:
        os._exit(71)


def wait_for(child: int) -> None:
    """Wait until this child has ended; other children that end meanwhile (orphans) are collected as well."""
    while True:
        pid, _ = os.wait()
        if pid == child:
            return


def prepare(layout: Layout) -> None:
    """Make what a machine may have lost since the last start: /run, and the directories of logs.

    supervisord does not start if one of these is missing.
    """
    import grp

    disk.roots_dir(layout.roots, 0o711)
    for path in (layout.run, layout.log, layout.root / "run/sshd"):
        path.mkdir(mode=0o755, exist_ok=True)
    for path in sockets(layout):
        path.unlink(missing_ok=True)  # if the socket exists, that means that a program listens on it
    for user in app_users(layout, "app-"):
        with disk.opened_dir(layout.run) as run_dir:
            proxy = grp.getgrnam(PROXY_GROUP).gr_gid
            disk.make_dir(run_dir, user.pw_name.removeprefix("app-"), 0o2750, user.pw_uid, proxy)
    for file in layout.supervisor.glob("*.conf"):
        for log in re.findall(r"^stdout_logfile = (\S+)$", file.read_text(), re.MULTILINE):
            Path(log).parent.mkdir(parents=True, exist_ok=True)


def clear_leftovers(layout: Layout) -> None:
    """End what was left by a keeper that was killed together with supervisord: no process may run twice."""
    keep = ancestors()
    uids = {user.pw_uid for user in app_users(layout, "app-", "build-")}
    while left := (family.of_users(uids) | family.with_environment([MARK]) | servers(layout)) - keep:
        family.kill(left)
        family.reap()
        time.sleep(0.01)


def servers(layout: Layout) -> set[int]:
    """Our nginx and our listening sshd: both write over their environment, and so over the mark in it.

    Not sshd's sessions, which go on.
    """
    found: set[int] = set()
    for name in ("nginx", "sshd"):
        with suppress(OSError, ValueError):
            pid = int((layout.root / f"run/{name}.pid").read_text())
            if (layout.supervisor / f"shipit-{name}.conf").exists() and comm(pid) == name:
                found |= {pid} | (family.below(pid) if name == "nginx" else set())
    return found


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def app_users(layout: Layout, *kinds: str) -> list[pwd.struct_passwd]:
    """The users of apps, recognised by their name and a home below the state directory."""
    inside = f"{layout.state}/"
    return [user for user in pwd.getpwall() if user.pw_name.startswith(kinds) and user.pw_dir.startswith(inside)]


def ancestors() -> set[int]:
    """This process and all its ancestors: `shipit-supervisord start` over ssh must not end its own session."""
    up, found, pid = family.parents(), set(), os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = up.get(pid, 0)
    return found
