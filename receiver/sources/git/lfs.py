"""Git LFS: a pushed commit holds pointers; the files are on the LFS server that .lfsconfig names.

shipit is no LFS server. If .lfsconfig has `lfs.url` (https) and git-lfs is installed here, the files are fetched from
there. Else the release fails and names the missing files: an app with pointers instead of pictures would go live and
only look well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from receiver.errors import Rejected, as_root
from receiver.names import Oid
from receiver.sources.git import caches
from receiver.sources.git.commits import Commits, CommitTree
from receiver.sources.git.repository import Git, environment
from receiver.system.run import find, run

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer is smaller than 1024 bytes.
_MAX_POINTER = 1024
_VERSION = b"version https://git-lfs.github.com/spec/v1\n"
_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.M)
_URL = re.compile(r"https://[A-Za-z0-9][^\s\x00-\x20\x7f@]{0,1000}", re.ASCII)
TIMEOUT = 900


def pointers(commits: Commits, tree: CommitTree) -> dict[str, bytes]:
    """Path → pointer of every file in LFS; none, without reading files, if .gitattributes does not mention LFS."""
    files = tree.files()
    attributes = [path for path in files if path == ".gitattributes" or path.endswith("/.gitattributes")]
    if not any(b"filter=lfs" in (tree.read(path) or b"") for path in attributes):
        return {}
    small = [path for path in files if tree.entries()[path].size < _MAX_POINTER]
    found = {path: tree.read(path) or b"" for path in small}
    return {path: raw for path, raw in found.items() if raw.startswith(_VERSION) and _OID.search(raw)}


def fill(commits: Commits, oid: Oid, found: Mapping[str, bytes], git: Git) -> None:
    """Replace the pointers in the index of `git` by the real files; raises Rejected if they cannot be fetched."""
    url = _url(commits, oid)
    if not url or find("git-lfs") is None:
        raise Rejected(
            "These files are Git LFS pointers, and shipit stores no LFS objects: " + _some(list(found)),
            hint="Name the LFS server in the commit: git config -f .lfsconfig lfs.url https://…/info/lfs"
            if not url
            else f"Install git-lfs on the server: {as_root('apt install git-lfs')}",
        )
    for path, raw in found.items():
        content = _fetch(git, url, path, raw)
        blob = git.run("hash-object", "-w", "--no-filters", "--", str(content)).out.strip()
        content.unlink()
        mode = commits.tree(oid).entries()[path].mode
        git.run("update-index", "-z", "--index-info", input=f"{mode} {blob}\t{path}\0".encode())


def _url(commits: Commits, oid: Oid) -> str:
    if commits.tree(oid).read(".lfsconfig") is None:
        return ""
    result = commits.git.run("config", f"--blob={oid}:.lfsconfig", "--no-includes", "--get", "lfs.url", check=False)
    url = result.out.strip()
    return url if _URL.fullmatch(url) else ""


def _fetch(git: Git, url: str, path: str, pointer: bytes) -> Path:
    """Fetch one file with git-lfs's smudge filter, into a file beside the index; the repository's `lfs/` caches it."""
    content = Path(git.env["GIT_INDEX_FILE"]).with_name("lfs")
    named = _OID.search(pointer)
    assert named is not None
    env = environment({"lfs.url": url}, {"GIT_LFS_SKIP_SMUDGE": "0"})
    with content.open("wb") as out:
        done = run(git.argv("lfs", "smudge"), env=env, input=pointer, stdout=out.fileno(), check=False, timeout=TIMEOUT)
    if done.code or (content.stat().st_size < _MAX_POINTER and content.read_bytes() == pointer):
        raise Rejected(
            f"The LFS file {path!a} could not be fetched from {url}.",
            hint="Are its objects there, and may everyone read them? Push them: git lfs push --all origin",
            details=done.err.splitlines()[-5:],
        )
    caches.used(caches.lfs_object(git.repo, named[1].decode()))
    return content


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(ascii(path)[1:-1] for path in paths[:10])
    return shown if len(paths) <= 10 else f"{shown} and {len(paths) - 10} more"
