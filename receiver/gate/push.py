"""What the gateway tells the hooks of one push, through the environment of git receive-pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from receiver import names
from receiver.errors import HostFault, Rejected
from receiver.host.ledger import Ledger
from receiver.names import AppName
from receiver.paths import Layout

MESSAGE_MAX = 200


@dataclass(frozen=True)
class Push:
    """One push. `worker` and `verdict` are inherited descriptors: the worker's connection, and the pipe into which
    post-receive writes the number of the release that it opened. `max_files`, `min_free` (MiB): see Settings."""

    root: Path
    app: AppName
    by: str
    worker: int
    verdict: int
    max_files: int
    min_free: int

    @property
    def ledger(self) -> Ledger:
        return Ledger(Layout(self.root).app(self.app))

    def environment(self) -> dict[str, str]:
        return {
            "SHIPIT_ROOT": str(self.root),
            "SHIPIT_APP": self.app,
            "SHIPIT_BY": self.by,
            "SHIPIT_WORKER_FD": str(self.worker),
            "SHIPIT_VERDICT_FD": str(self.verdict),
            "SHIPIT_MAX_FILES": str(self.max_files),
            "SHIPIT_MIN_FREE": str(self.min_free),
        }


def read(environ: Mapping[str, str]) -> Push:
    """The push this hook belongs to; raises HostFault when git was not started by the gateway."""
    try:
        return Push(
            root=Path(environ["SHIPIT_ROOT"]),
            app=names.app_name(environ["SHIPIT_APP"]),
            by=environ["SHIPIT_BY"],
            worker=int(environ["SHIPIT_WORKER_FD"]),
            verdict=int(environ["SHIPIT_VERDICT_FD"]),
            max_files=int(environ["SHIPIT_MAX_FILES"]),
            min_free=int(environ["SHIPIT_MIN_FREE"]),
        )
    except (KeyError, ValueError) as error:
        raise HostFault("This hook is for pushes that come through shipit's gate.") from error


@dataclass(frozen=True)
class Options:
    """The push options (`git push -o`)."""

    deploy: bool = True
    force: bool = False
    message: str = ""


def options(environ: Mapping[str, str]) -> Options:
    """Parse GIT_PUSH_OPTION_* (githooks(5)): `no-deploy`, `force`, `message=TEXT`; raises Rejected for any other."""
    found = Options()
    count = environ.get("GIT_PUSH_OPTION_COUNT", "0")
    for i in range(int(count) if count.isdigit() else 0):
        text = environ.get(f"GIT_PUSH_OPTION_{i}", "")
        if text == "no-deploy":
            found = Options(False, found.force, found.message)
        elif text == "force":
            found = Options(found.deploy, True, found.message)
        elif text.startswith("message="):
            message = text.removeprefix("message=")
            if not message.isprintable():
                raise Rejected("A message is one line of printable text.")
            found = Options(found.deploy, found.force, message[:MESSAGE_MAX])
        else:
            raise Rejected(
                f"shipit knows no push option {text[:40]!a}.", hint="It knows: no-deploy, force, message=TEXT"
            )
    return found
