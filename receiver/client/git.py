"""Quick questions to git about a checkout: every command of the client asks some (importing system/run.py takes longer
than git's answer)."""

from __future__ import annotations

import os


def asked(directory: str, *words: str) -> str:
    """The output of `git -C DIRECTORY WORDS`; empty if it fails, or there is no git."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        child = os.posix_spawnp("git", ["git", "-C", directory, *words], os.environ, file_actions=actions)
    except OSError:
        os.close(reader)
        return ""
    finally:
        os.close(writer)
        os.close(null)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    return "" if os.waitpid(child, 0)[1] else os.fsdecode(said)
