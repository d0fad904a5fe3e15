"""The checkpoints of a deploy (receiver/story/checkpoint.py) as a test uses them: kill the worker there, or hold it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.background import Background, wait_for
from lab.host import Host

from receiver.story.worker import NAME as WORKER

# What pam_env(8) gives every session: root's to write, and the gateway hands it to its worker.
ENVIRONMENT = "/etc/environment"


@contextmanager
def dying_at(host: Host, checkpoint: str) -> Iterator[None]:
    """A worker that starts within the block is killed at this checkpoint."""
    with _environment(host, f"SHIPIT_DIE_AT={checkpoint}"):
        yield


@contextmanager
def held_at(host: Host, checkpoint: str) -> Iterator[None]:
    """A worker that starts within the block stops at this checkpoint (`all`: at each) until `go_on`.

    The block ends when no worker is left.
    """
    with _environment(host, f"SHIPIT_STOP_AT={checkpoint}"):
        try:
            yield
        finally:
            if host.leader:
                wait_for("the workers to end", lambda: not go_on(host), timeout=90)


@contextmanager
def _environment(host: Host, line: str) -> Iterator[None]:
    host.write(ENVIRONMENT, line + "\n")
    try:
        yield
    finally:
        if host.leader:
            host.write(ENVIRONMENT, "")


def wait_until_held(host: Host, change: Background) -> bool:
    """Until the worker has come to its checkpoint; False if the change ended without coming by there."""

    def look() -> str:
        if host.run("pgrep", "--runstates", "T", "-x", WORKER, check=False).ok:
            return "held"
        # The verdict comes before the last checkpoints: the asker may be gone while the worker still goes there.
        over = change.process.poll() is not None and not host.run("pgrep", "-x", WORKER, check=False).ok
        return "over" if over else ""

    return wait_for("the worker to come to its checkpoint", look, timeout=90) == "held"


def go_on(host: Host) -> bool:
    """Let every held worker go on; whether there was any worker."""
    return host.run("pkill", "-CONT", "-x", WORKER, check=False).ok


def others(host: Host, pattern: str) -> list[str]:
    """The processes, oldest first, whose command line holds this; the worker, whose is the gateway's, is none."""
    workers = host.run("pgrep", "-x", WORKER, check=False).out.split()
    return [pid for pid in host.run("pgrep", "-f", pattern, check=False).out.split() if pid not in workers]


def kill(host: Host, pattern: str) -> None:
    """kill -9 of all `others`."""
    if found := others(host, pattern):
        host.run("kill", "-9", *found, check=False)
