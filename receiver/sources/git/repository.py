"""git by argument vector: the environment it runs in, and the few things shipit asks of a repository.

Every repository belongs to `shipit` and only `shipit` runs git on it (threat row 22). Nothing of the caller's
environment and no configuration file but the repository's own is read; git is given object ids and full ref names.
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
    # Refs, too: else a power cut leaves an empty file in a branch's place (git-config(1); older ones ignore it).
    "core.fsync": "committed",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    # What git takes for itself stays below push_memory (system/limits.py), however large the files and many the cores:
    # larger files are streamed and not compared with each other, and two threads at most do anything at once.
    "core.bigFileThreshold": "32m",
    "pack.windowMemory": "64m",
    "pack.threads": "2",
    # git archive writes 0775 and 0664 otherwise.
    "tar.umask": "0022",
}
# What receive-pack gives its hooks, so that they see the objects that are not accepted yet (git-receive-pack(1)).
QUARANTINE = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")

# Above the tree's own .gitattributes (gitattributes(5)): the archive holds each file as it was committed.
ATTRIBUTES = "* -export-ignore -export-subst -text -ident -filter -working-tree-encoding\n"


def environment(config: Mapping[str, str] | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A whole environment for git; `config` goes in as GIT_CONFIG_COUNT (git-config(1)), over every file."""
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
        """Run a git command in the repository; raises HostFault when it fails and `check` is set."""
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
        """The commit that a full ref name or object id stands for; None if there is none."""
        result = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False)
        return Oid(result.out.strip()) if result.code == 0 else None

    def branch(self, branch: Branch) -> Oid | None:
        """Where a branch is; without starting git when it was moved since the last gc."""
        try:
            return Oid((self.repo / "refs/heads" / branch).read_text().strip())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return self.commit_of(f"refs/heads/{branch}")

    def put_back(self, branch: Branch, commit: Oid | None) -> bool:
        """Make a branch be at `commit` (None: not be); whether it had to be changed.

        For who has the app's turn: what a killed git or a power cut left in the way is removed, also where the branch is
        right, since the next push would fail for it.
        """
        ref = self.repo / "refs/heads" / branch
        # git locks HEAD too, when it changes the branch that HEAD names.
        locks = ref.with_name(f"{ref.name}.lock"), self.repo / "HEAD.lock"
        moved = self.branch(branch) != commit
        if not moved and not any(lock.exists() for lock in locks):
            return False
        where = ["-d", f"refs/heads/{branch}"] if commit is None else [f"refs/heads/{branch}", commit]
        if self.run("update-ref", "--no-deref", *where, check=False).code:
            # git neither reads an empty file nor replaces it, and waits for nobody's lock for ever.
            for path in (*locks, ref):
                path.unlink(missing_ok=True)
            if self.branch(branch) != commit:
                self.run("update-ref", "--no-deref", *where)
        return moved

    def described(self, commit: Oid, *tags: str) -> str:
        """`TAG-COUNT-gCOMMIT` by the newest tag (of those that match one of `tags`; default: with a digit) that the
        commit comes after, `COUNT-gCOMMIT` if there is none."""
        which = [f"--match={pattern}" for pattern in tags or ("*[0-9]*",)]
        found = self.run("describe", "--tags", "--long", "--abbrev=40", *which, commit, check=False)
        if found.code == 0:
            return found.out.strip()
        count = self.run("rev-list", "--count", commit, check=False).out.strip()
        return f"{count}-g{commit}" if count else ""

    def pin(self, number: int, commit: Oid) -> None:
        """Keep the commit of release `number`, whatever becomes of its branch."""
        self.run("update-ref", f"refs/shipit/v{number}", commit)

    def unpin(self, number: int) -> None:
        """Let go of the commit of a release that was pruned."""
        self.run("update-ref", "-d", f"refs/shipit/v{number}")

    def store(self, commit: Oid) -> None:
        """Keep a commit that was pushed without being deployed, until the next such push."""
        self.run("update-ref", "refs/shipit/stored", commit)

    def point_head_at(self, branch: Branch) -> None:
        """Whoever clones the repository gets this branch."""
        self.run("symbolic-ref", "HEAD", f"refs/heads/{branch}")

    def sweep(self) -> None:
        """Remove the objects of pushes that were cut off. Only for who has the app's turn, after its own git ended."""
        for left in (self.repo / "objects").glob("tmp_objdir-*"):
            remove_tree(left)

    def packs(self) -> int:
        """How many packs there are; each push makes one."""
        return sum(1 for _ in (self.repo / "objects/pack").glob("*.pack"))


def quarantine(environ: Mapping[str, str], repo: Path) -> dict[str, str]:
    """The part of a hook's environment that lets us see the objects being pushed; git may name them relative to `repo`."""
    found = {name: environ[name] for name in QUARANTINE if name in environ}
    return {
        name: os.pathsep.join(str(repo / part) for part in value.split(os.pathsep)) for name, value in found.items()
    }


@contextmanager
def scratch(repo: Path, place: Path, name: str) -> Iterator[Git]:
    """A repository in `place` for the block, which sees the objects of `repo`. Whoever makes one has the app's turn:
    others of this name were left by somebody who was killed, and are removed."""
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
