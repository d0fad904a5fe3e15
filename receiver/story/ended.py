"""How a sandboxed job ended, in words that name the limit it ran into."""

from __future__ import annotations

from receiver.settings import Settings

OUT_OF_TIME, SIGKILLED = 124, 137


def told(code: int, timeout: int, settings: Settings) -> str:
    """The words that follow "The build of v8 ..." if its exit code was not 0."""
    if code == OUT_OF_TIME:
        return f"took longer than {timeout} s and was stopped"
    if code == SIGKILLED and settings.build_memory:
        limit = f"{settings.build_memory} MiB of memory (build_memory in the server's settings)"
        return f"was killed (exit {code}), as the kernel does with what needs more than {limit}"
    return f"failed (exit {code})"
