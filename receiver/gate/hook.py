"""The work of git's hooks: pre-receive refuses, post-receive has the pushed commit made a release.

git runs `hooks/*`, three lines of shell that ask the gateway, and the gateway answers with this module. The gateway
waits for git anyway and has imported all this by then, so a push does not start Python again. The client shows what is
written to the hook's standard error, with `remote: ` before each line. The worker makes the release, so killing a hook,
git, the gateway or the client does not stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from receiver.caller import Caller
from receiver.errors import Failure, HostFault, sick_disk
from receiver.gate import refs
from receiver.gate.push import Options, options
from receiver.gate.refs import Update
from receiver.gate.sideband import Sideband
from receiver.here import typed
from receiver.ledger.follow import follow
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Origin, Release
from receiver.names import Domain, Oid
from receiver.paths import Layout
from receiver.proxy.endpoint import still_holds
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.sources.files import REF, FilesSource
from receiver.sources.git.commits import Commits
from receiver.sources.git.repository import quarantine
from receiver.sources.git.source import GitSource
from receiver.story import worker
from receiver.story.admit import admit, approve_for, keep_web


class Hooks:
    """The hooks of one push. `release` is the one that post-receive opened, as last read."""

    def __init__(self, layout: Layout, ledger: Ledger, settings: Settings, caller: Caller, agent: Agent) -> None:
        self.release: Release | None = None
        self._domains: Sequence[Domain] = ()
        self._layout = layout
        self._ledger = ledger
        self._settings = settings
        self._caller = caller
        self._agent = agent

    def answer(self, name: str, pid: int, lines: Sequence[bytes]) -> int:
        """Do the work of the hook `name`, whose process `pid` waits; returns its exit code."""
        act: Callable[[Sideband, Options, Mapping[str, str], list[Update]], None]
        act = self._pre_receive if name == "pre-receive" else self._post_receive
        with Sideband.of(pid) as side:
            try:
                env = environment(pid)
                act(side, options(env), env, refs.parse(lines))
            except Failure as failure:
                side.failure(failure)
                return 1
            except OSError as error:
                side.failure(sick_disk(error) or self._untaken(error))
                return 1
        return 0

    def _untaken(self, error: OSError) -> HostFault:
        return HostFault(
            f"The server could not take the push ({error.strerror or error}).",
            holds=still_holds(self._ledger),
            hint="Push again; the server's administrator looks with: shipit doctor",
        )

    def _pre_receive(self, side: Sideband, wish: Options, env: Mapping[str, str], updates: list[Update]) -> None:
        state = self._ledger.state()
        with Commits(self._ledger.paths.repo, quarantine(env, self._ledger.paths.repo)) as commits:
            refs.check(updates, state, wish, commits.git)
            found = refs.deployed(updates, state)
            wanted = refs.files(updates) or (found and found[1].new)
            if wanted is not None:
                ledger, settings = self._ledger, self._settings
                manifest, self._domains = admit(self._layout, ledger, settings, self._caller, commits, wanted)
                if wish.deploy and not wish.drop_web:
                    how = "shipit deploy --drop-web" if refs.files(updates) else "git push -o drop-web"
                    keep_web(ledger, manifest, f"Is this intended? {how}")

    def _post_receive(self, side: Sideband, wish: Options, env: Mapping[str, str], updates: list[Update]) -> None:
        state = self._ledger.state()
        if (oid := refs.files(updates)) is not None:
            self._deploy_files(side, wish, oid)
            return
        found = refs.deployed(updates, state)
        if found is None:
            side.tell("-----> Stored. Tags are not deployed.")
            return
        branch, update = found
        source = GitSource(self._ledger.paths)
        with source.commits as commits:
            if update.new is None:
                self._ledger.change_state(lambda s: replace(s, branch=None))
                side.tell(f"-----> {branch} is gone. The next branch that is pushed becomes the deploy branch.")
                return
            if state.branch is None:
                self._ledger.change_state(lambda s: replace(s, branch=branch))
                commits.git.point_head_at(branch)
            if not wish.deploy:
                commits.git.store(update.new)
                side.tell(f"-----> Stored {update.new[:8]}, not deployed. Deploy it: git push")
                return
            self._deploy(side, wish, source.origin(update.new, branch))

    def _deploy_files(self, side: Sideband, wish: Options, oid: Oid) -> None:
        """Deploy the commit and delete the ref that brought it: the release keeps the commit."""
        source = FilesSource(self._ledger.paths)
        with source.commits as commits:
            try:
                self._deploy(side, wish, source.origin(oid))
            finally:
                commits.git.run("update-ref", "-d", REF)

    def _deploy(self, side: Sideband, wish: Options, origin: Origin) -> None:
        """Open the release, start its worker, and show its log until the verdict."""
        approve_for(self._caller, self._ledger, self._domains)
        release = self.release = self._ledger.open_release(
            Change.DEPLOY,
            self._caller.name,
            key=self._caller.fingerprint,
            builds=True,
            origin=origin,
            message=wish.message,
            fresh=wish.force,
        )
        ended = worker.begin(self._layout, self._ledger, release, self._agent)
        side.tell(typed(f"       Ctrl-C detaches. Watch: shipit releases:output {release.app} -f"))
        side.tell(typed(f"       Stop: shipit cancel {release.app}"))
        holds = partial(still_holds, self._ledger)
        self.release = follow(self._ledger, release.number, side.fd, worker=ended, holds=holds)


def environment(pid: int) -> dict[str, str]:
    """The environment that git gave its hook, read from a process of our own user."""
    with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - not a path of ours
        pairs = (item.partition(b"=") for item in file.read().split(b"\0"))
        return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}
