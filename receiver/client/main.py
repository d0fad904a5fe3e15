"""`shipit` on a laptop: finds server and app, and runs the command there over ssh. Commands in LOCAL run here.

Every command of the server works this way, with the same words, exit code and terminal. Imports little, so that a
command takes no longer than ssh itself.
"""

from __future__ import annotations

from receiver.client.forward import forward
from receiver.errors import Failure, Rejected
from receiver.system.told import told

TYPE_CHECKING = False  # instead of importing typing, which takes longer than this whole module
if TYPE_CHECKING:
    from typing import NoReturn

# Commands that run here → the function in receiver.client.commands.
LOCAL = ("check", "init", "version", "deploy", "pack", "server:add", "server:upgrade", "server:rollback")
# The name of a file that `shipit deploy FILE` sends.
SENT = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip", ".whl", ".deb", ".rpm")


def main(words: list[str]) -> NoReturn:
    """Run or forward one command; raises SystemExit or becomes ssh(1)."""
    try:
        remote, app, rest = options(words)
        if not rest or rest[0] in ("-h", "--help") or local(rest):
            from receiver.client.commands import run

            raise SystemExit(run(rest, remote, app))
        forward(rest, remote, app)
    except Failure as failure:
        raise SystemExit(told(failure)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def options(words: list[str]) -> tuple[str, str, list[str]]:
    """`--remote NAME` and `--app NAME` before the command; (remote, app, the command's words)."""
    found = {"--remote": "", "--app": ""}
    names = {"-r": "--remote", "-a": "--app"}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-h", "--help"):
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = names.get(name, name)
        if name not in found:
            raise Rejected(f"There is no option {word[:40]!a} before a command.", hint="There are --remote and --app")
        if not equals:
            if not rest:
                raise Rejected(f"{name} needs a value.", hint="shipit --remote prod --app blog releases")
            value = rest.pop(0)
        found[name] = value
    return found["--remote"], found["--app"], rest


def local(words: list[str]) -> bool:
    """Whether this machine runs it. `deploy` of a release, a ref, an image or standard input runs on the server."""
    if words[0] != "deploy":
        return words[0] in LOCAL
    from pathlib import Path

    values = [before in ("-m", "--message", "--format") for before in words]
    named = [w for w, value in zip(words[1:], values, strict=False) if not value and (w == "-" or w[:1] != "-")]
    if any(word.partition("=")[0] == "--image" for word in words) and "--help" not in words:
        return True
    theirs = {"--fresh", "--url", "--pypi", "--sha256", "--system"}
    if any(word.partition("=")[0] in theirs for word in words):
        return False
    return all(Path(word).is_dir() or (word.endswith(SENT) and Path(word).is_file()) for word in named)
