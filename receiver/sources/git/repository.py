"""Runs git: its environment, and the few operations that shipit needs in a repository.

Every repository belongs to `shipit`, and only `shipit` runs git in it (threat row 22). git gets nothing of the caller's
environment, reads no configuration file except the repository's own, and is given object ids and full ref names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from receiver.errors import HostFault
from receiver.names import Branch, Oid
from receiver.system.disk import remove_tree
from receiver.system.run import PATH, PIPE, Program, Result, run, start

ENVIRONMENT: Mapping[str, str] = {
    "PATH": PATH,
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    # A pushed refs/replace/* would let one object stand for another.
    "GIT_NO_REPLACE_OBJECTS": "1",
}
CONFIG: Mapping[str, str] = {
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.fsmonitor": "false",
    # Refs, too: otherwise a power cut can leave an empty file as a branch (git-config(1); older versions ignore this).
    "core.fsync": "committed",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    # These keep git's memory below push_memory (system/limits.py), whatever the size of files and number of cores:
    # larger files are streamed and not compared with each other, and git uses at most two threads.
    "core.bigFileThreshold": "32m",
    "pack.windowMemory": "64m",
    "pack.threads": "2",
    # Otherwise git archive writes the modes 0775 and 0664.
    "tar.umask": "0022",
}
# receive-pack sets these for its hooks, so that they see objects that are not accepted yet (git-receive-pack(1)).
QUARANTINE = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")

# Overrides the tree's own .gitattributes (gitattributes(5)): the archive has each file as it was committed.
ATTRIBUTES = "* -export-ignore -export-subst -text -ident -filter -working-tree-encoding\n"


def environment(config: Mapping[str, str] | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment for git; `config` goes in as GIT_CONFIG_COUNT (git-config(1)), above every file."""
    settings = {**CONFIG, **(config or {})}
    env = {**ENVIRONMENT, "GIT_CONFIG_COUNT": str(len(settings))}
    for i, (name, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{i}"] = name
        env[f"GIT_CONFIG_VALUE_{i}"] = value
    return {**env, **(extra or {})}


class Git:
    """One repository. `extra` is added to the environment: a hook's quarantine, a temporary index."""

    def __init__(self, repo: Path, extra: Mapping[str, str] | None = None) -> None:
        self.repo = repo
        self.env = environment(extra=extra)

    def argv(self, *words: str) -> list[str]:
        return ["git", f"--git-dir={self.repo}", *words]

    def run(self, *words: str, check: bool = True, input: bytes | None = None) -> Result:
        """Run a git command in the repository; if it fails and `check` is set, raises HostFault."""
        return run(self.argv(*words), env=self.env, check=check, input=input)

    def create(self) -> None:
        """Make the bare repository; repeatable."""
        self.run("init", "--quiet", "--bare", "--template=", "--initial-branch=main")
        attributes = self.repo / "info/attributes"
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text(ATTRIBUTES)

    def fast_import(self) -> Program:
        """Start git fast-import(1): what is written to its standard input becomes a commit. It makes nothing durable;
        that is done when the app's repository gets the commit (`take` in receive.py)."""
        config = ["-c", "fastimport.unpackLimit=1", "-c", "core.fsync=none"]
        return start(
            self.argv(*config, "fast-import", "--quiet", "--done", "--max-pack-size=4g"), env=self.env, stdin=PIPE,
            stdout=PIPE, stderr=PIPE,
        )  # fmt: skip

    def is_ancestor(self, old: Oid, new: Oid) -> bool:
        result = self.run("merge-base", "--is-ancestor", old, new, check=False)
        if result.code not in (0, 1):
            raise HostFault(f"git cannot compare {old[:8]} and {new[:8]}.", details=result.err.splitlines())
        return result.code == 0

    def commit_of(self, name: str) -> Oid | None:
        """The commit that a full ref name or object id names; None if there is none."""
        result = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False)
        return Oid(result.out.strip()) if result.code == 0 else None

    def branch(self, branch: Branch) -> Oid | None:
        """The commit of a branch; without starting git, if the branch was moved since the last gc."""
        try:
            return Oid((self.repo / "refs/heads" / branch).read_text().strip())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return self.commit_of(f"refs/heads/{branch}")

    def put_back(self, branch: Branch, commit: Oid | None) -> bool:
        """Set a branch to `commit` (None: remove it); returns whether that was a change.

        The caller has the app's turn. Lock files that a killed git or a power cut left are removed even if the branch
        is right, since the next push would fail because of them.
        """
        ref = self.repo / "refs/heads" / branch
        # When git changes the branch that HEAD names, it locks HEAD, too.
        locks = ref.with_name(f"{ref.name}.lock"), self.repo / "HEAD.lock"
        moved = self.branch(branch) != commit
        if not moved and not any(lock.exists() for lock in locks):
            return False
        where = ["-d", f"refs/heads/{branch}"] if commit is None else [f"refs/heads/{branch}", commit]
        if self.run("update-ref", "--no-deref", *where, check=False).code:
            # git cannot read or replace an empty ref file, and a stale lock file makes it fail.
            for path in (*locks, ref):
                path.unlink(missing_ok=True)
            if self.branch(branch) != commit:
                self.run("update-ref", "--no-deref", *where)
        return moved

    def described(self, commit: Oid, *tags: str) -> str:
        """`TAG-COUNT-gCOMMIT` by the newest tag before the commit (that matches one of `tags`; by default one with a
        digit), `COUNT-gCOMMIT` if there is none."""
        which = [f"--match={pattern}" for pattern in tags or ("*[0-9]*",)]
        found = self.run("describe", "--tags", "--long", "--abbrev=40", *which, commit, check=False)
        if found.code == 0:
            return found.out.strip()
        count = self.run("rev-list", "--count", commit, check=False).out.strip()
        return f"{count}-g{commit}" if count else ""

    def pin(self, number: int, commit: Oid) -> None:
        """Keep the commit of release `number`, even if its branch is removed."""
        self.run("update-ref", f"refs/shipit/v{number}", commit)

    def unpin(self, number: int) -> None:
        """Stop keeping the commit of a release that was pruned."""
        self.run("update-ref", "-d", f"refs/shipit/v{number}")

    def store(self, commit: Oid) -> None:
        """Keep a commit that was pushed but not deployed, until the next such push."""
        self.run("update-ref", "refs/shipit/stored", commit)

    def point_head_at(self, branch: Branch) -> None:
        """Set the branch that a clone of the repository checks out."""
        self.run("symbolic-ref", "HEAD", f"refs/heads/{branch}")

    def sweep(self) -> None:
        """Remove the objects of interrupted pushes. The caller has the app's turn, and its own git has ended."""
        for left in (self.repo / "objects").glob("tmp_objdir-*"):
            remove_tree(left)

    def packs(self) -> int:
        """How many packs there are; each push makes one."""
        return sum(1 for _ in (self.repo / "objects/pack").glob("*.pack"))


def quarantine(environ: Mapping[str, str], repo: Path) -> dict[str, str]:
    """The part of a hook's environment that shows us the pushed objects; git may write paths relative to `repo`."""
    found = {name: environ[name] for name in QUARANTINE if name in environ}
    return {
        name: os.pathsep.join(str(repo / part) for part in value.split(os.pathsep)) for name, value in found.items()
    }


@contextmanager
def scratch(repo: Path, place: Path, name: str) -> Iterator[Git]:
    """A repository in `place` for the block, which sees the objects of `repo`. The caller has the app's turn, so other
    repositories of this name are left from killed processes, and are removed."""
    # Slow to import, and a push needs none.
    import tempfile

    for left in place.glob(f"{name}-*"):
        remove_tree(left)
    work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
    try:
        git = Git(work / "repo.git")
        git.create()
        (git.repo / "objects/info").mkdir(exist_ok=True)
        (git.repo / "objects/info/alternates").write_text(f"{repo}/objects\n")
        yield git
    finally:
        remove_tree(work)
