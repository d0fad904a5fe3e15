"""Submodules: shipit fetches them into its own caches, at the commit that was pushed, recursively.

git's own `submodule` command is not used, because submodules have been used to attack git more than once
(CVE-2024-32002, CVE-2025-48384). Instead .gitmodules is read as data, a URL is https or ssh or refused, nothing is
checked out, and no hook runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from receiver.errors import Rejected
from receiver.names import Oid
from receiver.sources.git import caches
from receiver.sources.git.commits import Commits, CommitTree
from receiver.sources.git.repository import Git, environment
from receiver.system.run import run

MAX_DEPTH = 5
MAX_COUNT = 100
FETCH_TIMEOUT = 600
# https://host/path, ssh://user@host/path, user@host:path. No blank, no control character, no leading dash anywhere.
_URL = re.compile(
    r"https://[A-Za-z0-9][^\s\x00-\x20\x7f]{0,1000}"
    r"|ssh://(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/[^\s\x00-\x20\x7f]{1,1000}"
    r"|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s\x00-\x20\x7f-][^\s\x00-\x20\x7f]{0,1000}",
    re.ASCII,
)
_CREDENTIALS = re.compile(r"//[^/@]*@")


def fetched(commits: Commits, oid: Oid, modules: Mapping[str, Oid]) -> Iterator[tuple[str, CommitTree]]:
    """(path, its tree) of every submodule, parents before what is inside them."""
    # Imported here, because commits.py needs this module for its archive.
    from receiver.sources.git.commits import Commits

    stores = caches.submodules(commits.git.repo)
    todo = [(commits, oid, modules, "", 1)]
    count = 0
    while todo:
        where, commit, found, prefix, depth = todo.pop(0)
        if not found:
            continue
        if depth > MAX_DEPTH:
            raise Rejected(f"Submodules are nested deeper than {MAX_DEPTH}: {prefix!a}")
        urls = read_urls(where, commit)
        for path, wanted in found.items():
            count += 1
            if count > MAX_COUNT:
                raise Rejected(f"The commit has more than {MAX_COUNT} submodules.")
            cache = fetch(stores, prefix + path, checked(prefix + path, urls.get(path)), wanted)
            tree = Commits(cache).tree(wanted)
            yield prefix + path, tree
            todo.append((tree.commits, wanted, tree.submodules(), f"{prefix}{path}/", depth + 1))


def read_urls(commits: Commits, commit: Oid) -> dict[str, str]:
    """Path → URL from .gitmodules of a commit; git's own parser reads it, from the object, without includes."""
    if commits.tree(commit).read(".gitmodules") is None:
        return {}
    result = commits.git.run(
        "config", f"--blob={commit}:.gitmodules", "--no-includes", "-z", "--get-regexp", r"^submodule\..*\.(path|url)$",
        check=False,
    )  # fmt: skip
    sections: dict[str, dict[str, str]] = {}
    for record in result.out.split("\0"):
        name, _, value = record.partition("\n")
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = value
    return {s["path"]: s["url"] for s in sections.values() if "path" in s and "url" in s}


def checked(path: str, url: str | None) -> str:
    """The URL, if shipit fetches from such a URL; raises Rejected with what to write instead."""
    if url is None:
        raise Rejected(f"The submodule {path!a} is not in .gitmodules.", hint=f"Add it: git submodule add URL {path!a}")
    if url.startswith(("./", "../")):
        raise Rejected(
            f"The submodule {path!a} has the relative URL {url!a}; a pushed commit has no place that it is relative to.",
            hint=f"git submodule set-url {path!a} https://…",
        )
    if not _URL.fullmatch(url):
        raise Rejected(
            f"The submodule {path!a} has a URL that shipit does not fetch: {shown(url)!a}",
            hint=f"https and ssh only: git submodule set-url {path!a} https://…",
        )
    return url


def fetch(stores: Path, path: str, url: str, commit: Oid) -> Path:
    """Get one commit of a submodule into its cache (one for each URL); uses the network only if it is not there yet."""
    cache = stores / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.git"
    git = Git(cache)
    if not (cache / "HEAD").exists():
        stores.mkdir(exist_ok=True)
        git.create()
    caches.used(cache / "HEAD")
    if git.commit_of(commit):
        return cache
    # Some servers do not give out a commit by its id; then fetch all branches and tags.
    whole = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    said: list[str] = []
    for wanted in (("--depth=1", "--no-tags", "--", url, commit), ("--no-tags", "--", url, *whole)):
        said = _fetch(git, *wanted)
        if git.commit_of(commit):
            git.run("update-ref", f"refs/shipit/{commit}", commit)
            return cache
    raise Rejected(
        f"The commit {commit[:8]} of the submodule {path!a} could not be fetched from {shown(url)}.",
        hint=f"Is it pushed there, and may this server read it? Try: git ls-remote {shown(url)}",
        details=[_CREDENTIALS.sub("//", line) for line in said[-5:]],
    )


def _fetch(git: Git, *words: str) -> list[str]:
    config = {
        "protocol.https.allow": "always", "protocol.ssh.allow": "always", "fetch.fsckObjects": "true",
        "http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60",
    }  # fmt: skip
    extra = {
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oConnectTimeout=20",
        "GIT_ASKPASS": "/bin/false",
        # ssh looks for its keys and known hosts in the home of the account whatever HOME is.
    }
    result = run(git.argv("fetch", "--quiet", "--no-write-fetch-head", "--no-recurse-submodules", *words),
                 env=environment(config, extra), check=False, timeout=FETCH_TIMEOUT)  # fmt: skip
    return result.err.splitlines()


def shown(url: str) -> str:
    """A URL that may be printed: without a password or control characters."""
    return ascii(_CREDENTIALS.sub("//", url))[1:-1]
