"""What supervisord starts for an app's process: counts the start, sets limits, listens for sd_notify(3), launches it.

    supervised --memory=MIB --tasks=N --notify=CHECK APP N TYPE INDEX

Runs as root; the launcher then becomes the app's user. Only fast parts of the standard library: started with -I -S.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from receiver.engines.embedded import limits
from receiver.inside import launch

RUN = "/run/shipit-root"  # paths.Layout.roots, below which only root writes


def main(argv: list[str]) -> None:
    """Replace this program with the app's command; returns only by an exception."""
    given = dict(word.lstrip("-").partition("=")[::2] for word in argv if word.startswith("--"))
    app, number, kind, index = [word for word in argv if not word.startswith("--")]
    name = f"{RUN}/processes/{app}.v{number}.{kind}.{index}"
    os.makedirs(f"{RUN}/processes", mode=0o711, exist_ok=True)  # noqa: PTH103
    count(f"{name}.starts")
    if os.path.lexists(f"{name}.notify"):
        os.unlink(f"{name}.notify")  # noqa: PTH108
    if given["notify"] == "notify":
        os.environ["NOTIFY_SOCKET"] = listen_for_ready(f"{name}.notify", f"app-{app}")
    memory, tasks = limits.defaults()
    limits.apply(memory=int(given["memory"]) or memory, tasks=int(given["tasks"]) or tasks)
    launch.main(["--user", app, number, kind, index])


def count(path: str) -> None:
    """Count one more start. The count is lost with /run, as the processes are."""
    try:
        with open(path, opener=no_link) as file:
            before = int(file.read())
    except (FileNotFoundError, ValueError):
        before = 0
    with open(path, "w", opener=no_link) as file:
        file.write(f"{before + 1}\n")


def no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def listen_for_ready(path: str, user: str) -> str:
    """Leave a child that waits for READY=1 on the socket `path` and then removes it; the engine looks for that."""
    import pwd

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    before = os.umask(0o177)
    listener.bind(path)
    os.umask(before)
    os.chown(path, pwd.getpwnam(user).pw_uid, 0, follow_symlinks=False)
    parent: int = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        try:
            while True:
                ready = select.select([listener.fileno(), parent], [], [])[0]
                if parent in ready:
                    break
                if b"READY=1" in listener.recv(65536).split(b"\n"):
                    os.unlink(path)  # noqa: PTH108
                    break
        finally:
            os._exit(0)
    os.close(parent)
    listener.close()
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
