"""The push options: a closed set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from receiver.errors import Rejected

MESSAGE_MAX = 200


@dataclass(frozen=True)
class Options:
    """The push options (`git push -o`)."""

    deploy: bool = True
    force: bool = False
    message: str = ""
    drop_web: bool = False


def options(environ: Mapping[str, str]) -> Options:
    """Parse GIT_PUSH_OPTION_* (githooks(5)): `no-deploy`, `force`, `drop-web`, `message=TEXT`; raises Rejected for any other."""
    found = Options()
    count = environ.get("GIT_PUSH_OPTION_COUNT", "0")
    for i in range(int(count) if count.isdigit() else 0):
        text = environ.get(f"GIT_PUSH_OPTION_{i}", "")
        if text == "no-deploy":
            found = replace(found, deploy=False)
        elif text == "force":
            found = replace(found, force=True)
        elif text == "drop-web":
            found = replace(found, drop_web=True)
        elif text.startswith("message="):
            message = text.removeprefix("message=")
            if not message.isprintable():
                raise Rejected("A message is one line of printable text.")
            found = replace(found, message=message[:MESSAGE_MAX])
        else:
            raise Rejected(
                f"shipit knows no push option {text[:40]!a}.", hint="It knows: no-deploy, force, drop-web, message=TEXT"
            )
    return found
