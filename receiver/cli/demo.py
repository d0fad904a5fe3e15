"""`./install.sh --demo`: shows what shipit promises, on this machine, over real ssh, git and HTTP.

Every command is printed with `$` before it is run. Exit code 0 only if every promise held. Runs as root; leaves the
app `hello` behind, and nothing else.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from receiver import settings
from receiver.cli.load import Load, get
from receiver.errors import Failure, HostFault, Rejected
from receiver.names import AppName
from receiver.paths import SHIPIT_USER, Layout
from receiver.system.run import CLEAN, run, start
from receiver.system.told import told

APP = AppName("hello")
KEY = "shipit-demo"
CHANGE = ("Hello from shipit", "Hello again from shipit")
BROKEN = ('MESSAGE = "Hello again', 'raise RuntimeError("This commit is broken on purpose.")\nMESSAGE = "Hello again')


def main(argv: Sequence[str]) -> int:
    """`demo EXAMPLE`: the directory to push."""
    work = Path(tempfile.mkdtemp(prefix="shipit-demo-"))
    demo = Demo(Layout(), work)
    try:
        demo.prepare(Path(argv[0]))
        demo.first_push()
        demo.push_under_load()
        demo.roll_back()
        demo.broken_push()
        return demo.summary()
    except Failure as failure:
        return told(failure)
    except KeyboardInterrupt:
        return 130
    finally:
        demo.clean_up()
        shutil.rmtree(work)


class Demo:
    """One run: a laptop in a temporary directory, and the list of promises with their results."""

    def __init__(self, layout: Layout, work: Path) -> None:
        self.layout = layout
        self.known = settings.load(layout.settings)
        self.work, self.repo, self.key = work, work / "hello", work / "key"
        self.host = f"{APP}.{self.known.domain}"
        self.promises: list[tuple[bool, str]] = []
        ssh = ["ssh", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new"]
        ssh += ["-o", f"UserKnownHostsFile={work / 'known_hosts'}", "-o", "LogLevel=ERROR", "-F", "none"]
        self.ssh = [*ssh, "-p", str(self.known.ssh_port)]
        self.env: Mapping[str, str] = {
            **CLEAN,
            "HOME": str(work),
            "GIT_SSH_COMMAND": shlex.join(self.ssh),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in IDENTITY.items()},
        }

    # -- the acts

    def prepare(self, example: Path) -> None:
        """Make a key that may push, and a repository with the example."""
        headline("A key, and a repository")
        self.make_room()
        self.type("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", KEY, "-f", str(self.key))
        self.type("shipit", "ssh-keys:add", KEY, stdin=self.key.with_suffix(".pub"))
        shutil.copytree(example, self.repo)
        self.type("git", "init", "-q", "-b", "main")
        self.type("git", "add", "--all")
        self.type("git", "commit", "-q", "-m", "Hello")
        port = self.known.ssh_port
        url = f"{SHIPIT_USER}@127.0.0.1:{APP}" if port == 22 else f"ssh://{SHIPIT_USER}@127.0.0.1:{port}/{APP}"
        self.type("git", "remote", "add", "prod", url)

    def first_push(self) -> None:
        headline("The first push makes the app")
        seconds = self.push()
        answer = self.curl()
        self.promise(CHANGE[0] in answer, f"first push: live after {seconds:.1f} s")

    def push_under_load(self) -> None:
        headline("A change, while somebody is asking all the time")
        self.edit(*CHANGE)
        self.type("git", "commit", "-q", "-a", "-m", "Say it again")
        with Load(self.host, self.known.http_port) as load:
            self.until(lambda: load.total > 20)
            seconds = self.push()
            self.until(lambda: any(CHANGE[1] in text for text in load.answers))
        self.curl()
        self.promise(any(CHANGE[1] in text for text in load.answers), f"second push: live after {seconds:.1f} s")
        self.nothing_lost(load, "that push")

    def roll_back(self) -> None:
        headline("Back to the release before")
        with Load(self.host, self.known.http_port) as load:
            self.until(lambda: load.total > 20)
            begun = time.monotonic()
            code = self.run(*self.ssh, f"{SHIPIT_USER}@127.0.0.1", f"rollback {APP}", shown=f"rollback {APP}")
            seconds = time.monotonic() - begun
        answer = self.curl()
        self.promise(code == 0 and CHANGE[0] in answer, f"rollback: {seconds:.1f} s, ssh included")
        self.nothing_lost(load, "the rollback")

    def broken_push(self) -> None:
        headline("A commit that does not start")
        before = self.curl()
        self.edit(*BROKEN)
        self.type("git", "commit", "-q", "-a", "-m", "Break it")
        with Load(self.host, self.known.http_port) as load:
            self.until(lambda: load.total > 20)
            code = self.run("git", "push", "prod", "main", cwd=self.repo)
        print(f"       (exit code {code})")
        self.promise(code != 0, f"a push that fails, fails: exit code {code}")
        self.promise(self.curl() == before, "the release from before still serves")
        self.nothing_lost(load, "the failed push")

    def summary(self) -> int:
        headline("What was promised")
        for held, what in self.promises:
            print(f"  {'ok    ' if held else 'BROKEN'} {what}")
        port = "" if self.known.http_port == 80 else f":{self.known.http_port}"
        print(f"\nThe app stays: http://{self.host}{port}/   Look at it: shipit status {APP}")
        print(f"Remove it:     shipit apps:destroy {APP}")
        return 0 if all(held for held, _ in self.promises) else 1

    # -- the means

    def make_room(self) -> None:
        """Remove the app of an earlier demo; raises Rejected if another user has made an app of that name."""
        if shutil.which("shipit") is None:
            raise HostFault("The command shipit is not there.", hint="./install.sh")
        self.forget_key()
        app = self.layout.app(APP)
        if not app.dir.exists():
            return
        makers = {json.loads(path.read_bytes())["by"] for path in app.releases.glob("v*/release.json")}
        if makers - {KEY}:
            raise Rejected(f"An app named {APP} exists that this demo did not make.", holds="It was not touched.")
        self.type("shipit", "apps:destroy", APP, "--force")

    def push(self) -> float:
        """Push; returns the seconds it took. Raises HostFault if it fails unexpectedly."""
        begun = time.monotonic()
        code = self.run("git", "push", "prod", "main", cwd=self.repo)
        if code:
            raise HostFault(f"The push failed with exit code {code}.", hint=f"shipit releases:output {APP}")
        return time.monotonic() - begun

    def curl(self) -> str:
        """The page as a browser would get it; uses curl if it is installed."""
        port = self.known.http_port
        url = f"http://{self.host}{'' if port == 80 else f':{port}'}/"
        if shutil.which("curl"):
            print(f"$ curl {url}", flush=True)
            text = run(["curl", "-sS", "--resolve", f"{self.host}:{port}:127.0.0.1", url], check=False).out.strip()
        else:
            print(f"GET {url}", flush=True)
            try:
                status, text = get(self.host, port)
            except (OSError, http.client.HTTPException) as error:
                status, text = 0, str(error)
            text = text if status == 200 else f"{status} {text}"
        print(text, flush=True)
        return text

    def edit(self, old: str, new: str) -> None:
        """Change the app's source, and print the change."""
        path = self.repo / "app.py"
        text = path.read_text()
        if text.count(old) != 1:
            raise HostFault(f"The example does not hold {old!r} once.")
        path.write_text(text.replace(old, new))
        self.run("git", "diff", "--unified=0", "--no-color", cwd=self.repo)

    def type(self, *words: str, stdin: Path | None = None) -> None:
        """Run a command that must succeed."""
        code = self.run(*words, cwd=self.repo if self.repo.exists() else self.work, stdin=stdin)
        if code:
            raise HostFault(f"{words[0]} failed with exit code {code}.", hint="shipit doctor")

    def run(self, *words: str, cwd: Path | None = None, stdin: Path | None = None, shown: str = "") -> int:
        """Print a command, run it with its output visible, return its exit code."""
        line = f"ssh {SHIPIT_USER}@127.0.0.1 {shown}" if shown else shlex.join(words)
        print(f"$ {line}{f' < {stdin.name}' if stdin else ''}".replace(f"{self.work}/", ""), flush=True)
        source = os.open(stdin, os.O_RDONLY) if stdin else None
        try:
            # Both outputs go to one stream, so that their lines stay in order.
            return start(words, env=self.env, cwd=cwd or self.work, stdin=source, stderr=1).wait()
        finally:
            if source is not None:
                os.close(source)

    def until(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait for a condition, with a limit; if it is not met, the promise shows that."""
        deadline = time.monotonic() + seconds
        while not true() and time.monotonic() < deadline:
            time.sleep(0.02)

    def promise(self, held: bool, what: str) -> None:
        self.promises.append((held, what))

    def nothing_lost(self, load: Load, when: str) -> None:
        lost = sum(load.lost.values())
        print(f"       {load.total} requests during {when}, {lost} lost")
        for what, count in load.lost.most_common(5):
            print(f"       {count} × {what}")
        self.promise(lost == 0 and load.total > 0, f"no request lost: {lost} of {load.total} during {when}")

    def forget_key(self) -> None:
        run(["shipit", "ssh-keys:remove", KEY], check=False)

    def clean_up(self) -> None:
        """Remove the demo's key."""
        self.forget_key()


IDENTITY = {"NAME": "Demo", "EMAIL": "demo@localhost"}


def headline(text: str) -> None:
    print(f"\n=====> {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
