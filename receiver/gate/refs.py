"""The refs of one push: which one is deployed, and which make shipit refuse the push."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from receiver import names
from receiver.errors import Rejected
from receiver.gate.push import Options
from receiver.model import AppState
from receiver.names import Branch, Oid
from receiver.sources.files import REF as FILES
from receiver.sources.git.repository import Git

HEADS = "refs/heads/"
TAGS = "refs/tags/"


@dataclass(frozen=True)
class Update:
    """One line of a receive hook's input (githooks(5)); None for the zero id."""

    old: Oid | None
    new: Oid | None
    ref: str


def parse(lines: Iterable[bytes]) -> list[Update]:
    """The updates on a receive hook's standard input."""
    found = []
    for line in lines:
        old, new, ref = line.rstrip(b"\n").split(b" ", 2)
        found.append(Update(_oid(old), _oid(new), ref.decode(errors="replace")))
    return found


def _oid(raw: bytes) -> Oid | None:
    return names.oid(raw.decode()) if raw.strip(b"0") else None


def deployed(updates: Iterable[Update], state: AppState) -> tuple[Branch, Update] | None:
    """The deploy branch and its update; None if the push does not touch it. The first push decides the branch."""
    for update in updates:
        if update.ref.startswith(HEADS):
            branch = names.branch(update.ref.removeprefix(HEADS))
            if branch == (state.branch or branch):
                return branch, update
    return None


def files(updates: Sequence[Update]) -> Oid | None:
    """The commit made of a directory's files (sources/files.py), which is pushed alone; None for any other push."""
    return updates[0].new if [update.ref for update in updates] == [FILES] else None


def check(updates: list[Update], state: AppState, options: Options, git: Git) -> None:
    """Raise Rejected, with what to type, unless every update is allowed."""
    heads = [u for u in updates if u.ref.startswith(HEADS)]
    for update in updates:
        if update.ref == FILES and len(updates) == 1 and update.new is not None:
            continue
        if not update.ref.startswith((HEADS, TAGS)):
            raise Rejected(f"shipit takes branches and tags, not {update.ref[:200]!a}.")
    if state.branch is None and len(heads) > 1:
        raise Rejected(
            "The first push names the deploy branch, and this one has several branches.",
            hint=f"Push one: git push HOST:{state.app} {_plain(heads[0])}",
        )
    for update in heads:
        branch = names.branch(update.ref.removeprefix(HEADS))
        if state.branch is not None and branch != state.branch:
            raise Rejected(
                f"{state.app} deploys the branch {state.branch}, not {branch}.",
                hint=f"To deploy this one: git push HOST:{state.app} {branch}:{state.branch}\n"
                f"To deploy {branch} from now on: shipit git:set {state.app} deploy-branch {branch}",
            )
        _check_deploy_branch(update, branch, state, options, git)


def _check_deploy_branch(update: Update, branch: Branch, state: AppState, options: Options, git: Git) -> None:
    if update.new is None:
        if not state.allow_delete:
            raise Rejected(
                f"{branch} is the deploy branch of {state.app} and is not deleted by a push.",
                hint=f"Allow it: shipit git:set {state.app} delete on\n"
                f"Or deploy another branch: shipit git:set {state.app} deploy-branch NAME",
            )
        return
    if git.commit_of(update.new) != update.new:
        raise Rejected(f"What was pushed to {branch} is not a commit.")
    if update.old is None or state.allow_force_push or options.force:
        return
    if not git.is_ancestor(update.old, update.new):
        raise Rejected(
            f"The pushed {branch} does not contain the live commit {update.old[:8]}: history was rewritten.",
            hint=f"Deploy it all the same, once: git push --force -o force HOST:{state.app} {branch}\n"
            f"Or allow it always: shipit git:set {state.app} force-push on",
        )


def _plain(update: Update) -> str:
    return update.ref.removeprefix(HEADS)
