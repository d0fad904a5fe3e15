"""The repository that an app follows: asks which commits it has, and fetches one. git runs as `shipit`, with only the
app's own credentials."""

from __future__ import annotations

import os
import re
import shlex
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from receiver import names
from receiver.errors import HostFault, Rejected
from receiver.names import Oid
from receiver.sources.git.repository import Git, environment, scratch
from receiver.sources.limits import too_large
from receiver.sources.pull.wish import Follow, Place
from receiver.system.run import Result, ended, run, start

ASK, FETCH = 60, 1800  # seconds
SHARED = 20  # seconds
# The path of a unix socket has at most 107 bytes (unix(7)); ssh first makes it under a name that is 17 bytes longer.
LONGEST = 107 - 17
MAX_REFS = 2**22
TIMED_OUT = 124  # timeout(1)
PULLED = "refs/pull/one"
_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9._*?/+-]{0,199}", re.ASCII)
_REF = re.compile(r"refs/[A-Za-z0-9._/+-]{1,300}", re.ASCII)
# Lines that git adds after the reason.
_ADVICE = re.compile(r"^Please make sure you have|^and the repository exists|Could not read from remote repository")
_SECRET = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True)
class Seen:
    """What the other repository has: the object to fetch, its commit, and the ref's name."""

    ref: str
    oid: Oid


class Unreached(HostFault):
    """The other side does not answer, refuses access, or does not have what is wanted."""


def checked_ref(ref: str) -> str:
    """A branch, a tag, or a full ref; raises Rejected."""
    if ref.startswith("refs/") and _REF.fullmatch(ref) and ".." not in ref:
        return ref
    return names.branch(ref)


def checked_pattern(pattern: str) -> str:
    if not _PATTERN.fullmatch(pattern):
        raise Rejected(f"{pattern[:60]!a} is no pattern of tags.", hint="As in: --tags 'v*'")
    return pattern


def look(place: Place, follow: Follow) -> Seen:
    """What should be live according to the other repository; raises Unreached."""
    if follow.tags:
        words = ["--refs", "--sort=-version:refname", "--", follow.url, f"refs/tags/{follow.tags}"]
    elif follow.ref.startswith("refs/"):
        words = ["--", follow.url, follow.ref]
    elif follow.ref:
        words = ["--", follow.url, f"refs/heads/{follow.ref}", f"refs/tags/{follow.ref}"]
    else:
        words = ["--symref", "--", follow.url, "HEAD"]
    said = _git(place, ["git", "ls-remote", "--quiet", *words], ASK, MAX_REFS)
    if said.code:
        raise _unreached(follow, said)
    name = "HEAD"
    for line in said.out.splitlines():
        first, _, ref = line.partition("\t")
        if first.startswith("ref: "):
            name = first.removeprefix("ref: ")
        elif names.is_oid(first):
            return Seen(name if ref == "HEAD" else ref, Oid(first))
    raise Unreached(f"{follow.url} has no {follow.what}.", hint="Look there: git ls-remote URL")


@contextmanager
def one_connection(place: Place) -> Iterator[None]:
    """Within the block all ssh calls to the other side share the connection of the first one."""
    try:
        yield
    finally:
        # ssh also ends it by itself after SHARED seconds without use.
        if place.shared.exists():
            run(["ssh", "-F", "/dev/null", "-o", f"ControlPath={place.shared}", "-O", "exit", "--", "-"], check=False)


@contextmanager
def fetched(place: Place, follow: Follow, seen: Seen, most: int) -> Iterator[tuple[Git, Oid]]:
    """A temporary repository with what was seen, and its commit; objects that the app's repository has are not fetched.

    `most`: limit in bytes. Raises Unreached; Rejected if it is larger or no commit.
    """
    with scratch(place.repo, place.dir, "fetched") as git:
        # A fetch writes one pack file; the kernel's limit of file size ends a larger one.
        words = git.argv("fetch", "--quiet", "--no-tags", "--no-write-fetch-head")
        said = _git(place, [*words, "--no-auto-gc", "--", follow.url, f"+{seen.ref}:{PULLED}"], FETCH, most)
        if said.code:
            if "signal 25" in said.err or "File too large" in said.err:
                raise too_large(f"What {follow.url} sends", most)
            raise _unreached(follow, said)
        oid = git.commit_of(PULLED)
        if oid is None:
            raise Rejected(f"{seen.ref} of {follow.url} is no commit.")
        yield git, oid


def check_signature(place: Place, git: Git, seen: Seen, oid: Oid) -> str:
    """The allowed signer who signed the commit, or the tag that names it; raises Rejected if there is none."""
    if not place.lines(place.signers):
        raise Rejected(
            "No signer is allowed.", hint="Say whose signatures count: shipit git:allow-signers APP - < FILE"
        )
    env = environment({"gpg.format": "ssh", "gpg.ssh.allowedSignersFile": str(place.signers)})
    said = ""
    tag = git.run("rev-parse", "--verify", PULLED).out.strip()
    for verb, what in (("verify-tag", tag), ("verify-commit", str(oid))):
        if what == oid and verb == "verify-tag":
            continue
        done = run(git.argv(verb, what), env=env, check=False, timeout=ASK)
        if done.code == 0 and (found := re.search(r'Good "git" signature for (\S+)', done.err)):
            return found[1]
        said = done.err
    raise Rejected(
        f"{oid[:8]} of {seen.ref} is not signed by anybody who is allowed.",
        details=said.splitlines()[-3:],
        hint="Sign it: git commit -S    Say whose signatures count: shipit git:allow-signers APP - < FILE",
    )


def _git(place: Place, words: list[str], timeout: int, most: int) -> Result:
    """Run git for at most `timeout` seconds; no file that it writes gets larger than `most` bytes."""
    ssh = [
        "ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
        "-o", f"UserKnownHostsFile={place.known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
        "-o", f"IdentityFile={place.key}", "-o", "IdentityAgent=none", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=20",
    ]  # fmt: skip
    # Looking and fetching share one connection, because a login takes longer than either.
    if len(os.fsencode(place.shared)) <= LONGEST:
        ssh += ["-o", "ControlMaster=auto", "-o", f"ControlPersist={SHARED}", "-o", f"ControlPath={place.shared}"]
    else:
        ssh += ["-o", "ControlPath=none"]
    config = {
        "protocol.https.allow": "always", "protocol.ssh.allow": "always", "fetch.fsckObjects": "true",
        "fetch.unpackLimit": "1", "credential.helper": f"store --file={shlex.quote(str(place.credentials))}",
        "http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60",
    }  # fmt: skip
    env = environment(config, {"GIT_SSH_COMMAND": shlex.join(ssh), "GIT_SSH_VARIANT": "ssh", "GIT_ASKPASS": ""})
    # Output goes to files, whose size the kernel limits: the other side could send text without end.
    with tempfile.TemporaryFile(dir=place.dir) as out, tempfile.TemporaryFile(dir=place.dir) as err:
        child = start(["timeout", f"{timeout}", "prlimit", f"--fsize={most}", *words], env=env,
                      stdout=out.fileno(), stderr=err.fileno())  # fmt: skip
        with ended(child, signal.SIGTERM):
            code = child.wait()
        if code == TIMED_OUT:
            raise Unreached(f"The other side took longer than {timeout} s.")
        said = [os.pread(file.fileno(), MAX_REFS, 0).decode(errors="replace") for file in (out, err)]
    return Result(code, *said)


def _unreached(follow: Follow, said: Result) -> Unreached:
    lines = [_SECRET.sub("//", line) for line in said.err.splitlines() if line.strip() and not _ADVICE.search(line)]
    text = said.err
    hint = "Ask it by hand: git ls-remote URL"
    if "Host key verification failed" in text:
        hint = "Trust its host key: shipit git:allow-host APP HOST"
    elif "Permission denied" in text:
        hint = "Give the app a key that may read there: shipit git:generate-deploy-key APP"
    elif "could not read Username" in text or "Authentication failed" in text:
        hint = "Give the app a password: shipit git:auth APP HOST USER - < PASSWORD"
    return Unreached(f"{follow.url} could not be fetched.", details=lines[-4:], hint=hint)
