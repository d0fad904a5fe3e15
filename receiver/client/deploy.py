"""`shipit deploy`: makes a release of the files in a directory, committed or not. They travel as a push does.

The files become a commit whose objects are in a temporary directory, so the checkout does not change. Only what the
server lacks is sent (by git's own negotiation), and the push is followed to its verdict.
"""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from receiver.client import ssh
from receiver.client.files import Selection
from receiver.client.remote import Remote
from receiver.errors import HostFault, Rejected
from receiver.sources.files import REF
from receiver.system.run import run, start


@dataclass(frozen=True)
class Base:
    """What the checkout says of the files: the commit they come from ("": none) and whether they differ from it."""

    commit: str = ""
    subject: str = ""
    dirty: bool = False

    def told(self) -> str:
        if not self.commit:
            return "not in git"
        return f"{self.commit[:8]} {self.subject}" + (", with changes that are not committed" if self.dirty else "")


@dataclass(frozen=True)
class Workshop:
    """A place for new objects: git's environment, with the checkout's objects for comparison if there is one."""

    env: Mapping[str, str] = field(repr=False)
    root: Path

    def git(self, *words: str, input: bytes | None = None) -> str:
        return run(["git", *words], env=self.env, cwd=self.root, input=input).out.strip()


def base_of(selection: Selection) -> Base:
    """What git says of the directory; no error if it is not in git."""

    def asked(*words: str) -> str:
        return run(["git", *words], cwd=selection.root, env=os.environ, check=False).out.strip()

    try:
        commit = asked("rev-parse", "--verify", "--quiet", "HEAD")
    except HostFault:
        return Base()
    if not commit:
        return Base()
    dirty = bool(asked("status", "--porcelain", "--", ".")) or bool(selection.ignored)
    return Base(commit, asked("show", "-s", "--format=%s", "HEAD")[:100], dirty)


@contextmanager
def workshop(root: Path) -> Iterator[Workshop]:
    """A place for a commit's objects, removed after the block."""
    with tempfile.TemporaryDirectory(prefix="shipit-") as temporary:
        work = Path(temporary)
        env = dict(os.environ)
        git_dir = run(["git", "rev-parse", "--absolute-git-dir"], cwd=root, env=env, check=False).out.strip()
        if git_dir:
            objects = run(["git", "rev-parse", "--git-path", "objects"], cwd=root, env=env).out.strip()
            env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str((root / objects).resolve())
        else:
            git_dir = str(work / "repo.git")
            run(["git", "init", "--quiet", "--bare", git_dir], env=env)
        (work / "objects").mkdir()
        env |= {
            "GIT_DIR": git_dir, "GIT_OBJECT_DIRECTORY": str(work / "objects"), "GIT_INDEX_FILE": str(work / "index"),
        }  # fmt: skip
        yield Workshop(env, root)


def commit(at: Workshop, selection: Selection, base: Base, message: str) -> str:
    """Make a commit of the files exactly as they are, without git's filters and line endings; returns its id."""
    regular: list[tuple[str, int]] = []
    links: list[tuple[str, int]] = []
    for path in selection.paths:
        mode = (selection.root / path).lstat().st_mode
        if "\n" in path or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise Rejected(
                f"{path!a} cannot be shipped: it is no file with a usual name.", hint="artifact: exclude: […]"
            )
        (links if stat.S_ISLNK(mode) else regular).append((path, 0o100755 if mode & 0o100 else 0o100644))
    named = "".join(f"{path}\n" for path, _ in regular).encode(errors="surrogateescape")
    oids = at.git("hash-object", "-w", "--no-filters", "--stdin-paths", input=named).split() if regular else []
    lines = [f"{mode:o} {oid}\t{path}" for (path, mode), oid in zip(regular, oids, strict=True)]
    for path, _ in links:
        target = os.fsencode((selection.root / path).readlink())
        lines.append(f"120000 {at.git('hash-object', '-w', '--stdin', input=target)}\t{path}")
    at.git("update-index", "-z", "--add", "--index-info",
           input="\0".join([*lines, ""]).encode(errors="surrogateescape"))  # fmt: skip
    text = message or f"Files of {selection.root.resolve().name}" + (f" at {base.commit[:8]}" if base.commit else "")
    trailers = [f"Shipit-Base: {base.commit}"] * bool(base.commit) + [f"Shipit-Dirty: {'yes' if base.dirty else 'no'}"]
    return at.git("commit-tree", at.git("write-tree"), "-m", text, "-m", "\n".join(trailers))


def push(at: Workshop, server: Remote, oid: str, *, drop_web: bool) -> int:
    """Send the commit and follow its release; returns git's exit code, which is the verdict's."""
    if not server.app:
        raise Rejected("Which app?", hint="shipit --app NAME deploy")
    env = {**at.env, "GIT_SSH_COMMAND": shlex.join(ssh.argv())}
    meant = ["-o", "drop-web"] if drop_web else []
    words = ["git", "push", "--quiet", "--no-verify", *meant, server.url, f"+{oid}:{REF}"]
    code = start(words, env=env, cwd=at.root).wait()
    return code if code >= 0 else 128 - code
