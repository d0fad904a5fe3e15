"""`python -m benchmarks.ways_to_ship`: the ways to ship side by side on one app, for each the best short script and shipit
in turn, on booted machines. Writes ways.md and ways.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab import snapshot, tree
from tests.lab.base import REPO

from .__main__ import HERE, machine, say
from .figures import Figures, show, spread
from .load import Load
from .machine import Client, Outcome, Server
from .measures import SETTLE
from .packages import Packages
from .poller import Missing, Poller
from .receivers import DOMAIN, host_name
from .sample import ADDED, Sample
from .ways import APP, PREPARED, WAYS, Side, Way

SCRIPT, SHIPIT = "script", "shipit"
SIDES = (SCRIPT, SHIPIT)
# What a rented server has: a way in for root.
SSHD = "apt-get -q update && apt-get -q -y --no-install-recommends install openssh-server git && systemctl enable --now ssh"
FORGE = "useradd --create-home --shell /bin/bash up && install -d -o up -m 700 /home/up/.ssh"


@dataclass(frozen=True)
class Laptop(Client):
    """Somebody whose ssh knows the machines by the names `server`, `prod` and `forge`."""

    def know(self, **users_at: str) -> None:
        folder = self.home / "bin"
        folder.mkdir(exist_ok=True)
        hosts = "".join(
            f"Host {name}\n  User {at.split('@')[0]}\n  HostName {at.split('@')[1]}\n" for name, at in users_at.items()
        )
        (self.home / "config").write_text(
            f"{hosts}Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n  BatchMode yes\n  LogLevel ERROR\n"
            f"  StrictHostKeyChecking accept-new\n  UserKnownHostsFile {self.home / 'known_hosts'}\n"
        )
        for name in ("ssh", "scp"):
            (folder / name).write_text(f'#!/bin/sh\nexec /usr/bin/{name} -F {self.home / "config"} "$@"\n')
            (folder / name).chmod(0o755)

    def environment(self) -> dict[str, str]:
        environment = dict(super().environment())
        environment["PATH"] = f"{self.home / 'bin'}:{environment['PATH']}"
        environment["GIT_SSH_COMMAND"] = "ssh"
        return environment

    def type(self, text: str, cwd: Path) -> Outcome:
        """What a person types, in a directory."""
        return self.call("bash", "-c", text, cwd=cwd, timeout=600)


@dataclass
class Trial:
    """One way on one side: its working copy and its app."""

    way: Way
    who: str
    laptop: Laptop
    server: Server
    forge: str
    port: int
    sample: Sample
    packages: Packages
    figures: Figures
    added: list[str] = field(default_factory=lambda: list(ADDED))

    @property
    def side(self) -> Side:
        return self.way.script if self.who == SCRIPT else self.way.shipit

    @property
    def host(self) -> str:
        return host_name(self.way.app)

    def filled(self, text: str) -> str:
        n = self.sample.code
        command = self.way.command.format(app=self.way.app, port=self.port)
        return text.format(
            app=self.way.app, port=self.port, n=n, before=n - 1, host=self.host, forge=self.forge, command=command,
            user=self.way.user,
            out=self.packages.out, wheel=self.packages.wheel(n), wheel_before=self.packages.wheel(n - 1),
            deb=self.packages.deb(n), deb_before=self.packages.deb(n - 1), image=self.packages.image(n),
        )  # fmt: skip

    # -- before the first time

    def prepare(self, allow: Server) -> int:
        """What is typed once for the app; how many commands it is. `KEY`: what it prints is given to the forge."""
        script = self.who == SCRIPT
        if self.way.lab:
            self.server.sh(self.way.lab)
        if self.way.app == "pull":
            self.laptop.type(f"git push -q forge:{self.who}.git main", self.sample.where).must()
        words = [*(APP if script else ()), *self.side.once]
        for text in words:
            said = self.server.sh(f"cd /; {self.filled(text).removeprefix('KEY ')}", timeout=300).out
            if text.startswith("KEY "):
                allow.sh(f"echo {shlex.quote(said)} >> /home/up/.ssh/authorized_keys")
        for text in self.side.laptop:
            done = self.laptop.type(self.filled(text).removeprefix("KEY "), self.sample.where).must()
            if text.startswith("KEY "):
                allow.sh(f"echo {shlex.quote(done.said)} >> /home/up/.ssh/authorized_keys")
        return len(words) + len(self.side.laptop)

    # -- a change

    def build(self) -> None:
        if self.way.build:
            self.packages.make(self.way.build, self.sample)

    def change(self) -> str:
        marker = self.sample.commit()
        self.build()
        return marker

    def timed(self, what: str, text: str, marker: str) -> None:
        """From the start of the command to the first right answer; to its own end counts as well: nobody goes on before."""
        time.sleep(SETTLE)
        with Poller(self.server.ip, self.host, marker) as poller:
            done = self.laptop.type(self.filled(text), self.sample.where)
            if done.code:
                self.figures.notes[f"failed, {self.way.app}, {self.who}, {what}"] = " ".join(done.said.split())[-300:]
                return
            try:
                seen = poller.wait()
            except Missing as missing:
                self.figures.notes[f"missing, {self.way.app}, {self.who}, {what}"] = str(missing)
                return
        self.note(what, seen - done.began)
        self.note(f"{what}, whole", done.seconds)

    def note(self, what: str, number: float) -> None:
        self.figures.add(f"{self.way.app}: {what}", self.who, number)

    def first(self) -> None:
        self.build()
        self.laptop.type(self.filled(self.side.ship), self.sample.where).must()

    def code(self) -> None:
        self.timed("code", self.side.ship, self.change())

    def rollback(self) -> None:
        self.timed("rollback", self.side.back, f"code={self.sample.code - 1} ")

    def dependency(self) -> None:
        marker = self.sample.add(self.added.pop(0))
        self.build()
        self.timed("dependency", self.side.ship, marker)

    def lost(self) -> None:
        """A change and a rollback under load; then a change that nobody watches, for the bytes."""
        self.change()
        for what, text in (("lost", self.side.ship), ("lost, rollback", self.side.back)):
            with (load := Load(self.server.ip, self.host, True)):
                time.sleep(0.5)
                self.unwatched(what, text)
                time.sleep(0.5)
            self.note(what, load.tally.lost)

    def unwatched(self, what: str, text: str) -> None:
        """A failure is noted, and does not end the run: a script's restart may fail under load, and mend itself."""
        done = self.laptop.type(self.filled(text), self.sample.where)
        if done.code:
            self.figures.notes[f"failed, {self.way.app}, {self.who}, {what}"] = " ".join(done.said.split())[-300:]

    def bytes(self) -> None:
        self.change()
        time.sleep(SETTLE)
        before = travelled(self.server)
        self.unwatched("bytes", self.side.ship)
        time.sleep(SETTLE)
        self.note("bytes", (travelled(self.server) - before) / 1024)

    def memory(self) -> None:
        # What was replaced has ended by then.
        time.sleep(SETTLE * 3)
        self.note("memory", resident(self.server, f"shipit-{self.way.app}" if self.who == SHIPIT else self.way.app))


def travelled(server: Server) -> int:
    """Bytes that went through the machine's cable, both ways, headers and all."""
    fields = server.sh("grep host0: /proc/net/dev").out.split()
    return int(fields[1]) + int(fields[9])


def resident(server: Server, unit: str) -> float:
    """MiB of memory of the processes below the units of this name; what several share is counted in parts (PSS)."""
    script = (
        f"for p in $(grep -lE '/{unit}(\\.service|[-.@])' /proc/[0-9]*/cgroup 2>/dev/null); do "
        "grep -h ^Pss: ${p%cgroup}smaps_rollup 2>/dev/null; done | awk '{s+=$2} END {print s+0}'"
    )
    return int(server.sh(script).out) / 1024


def boot(name: str, client: Client) -> Server:
    server = Server.boot(tree.base_tree(tree.SUITE), name, own_disk=True)
    server.sh(SSHD, timeout=300)
    server.sh("install -d -m 700 /root/.ssh")
    server.write("/root/.ssh/authorized_keys", client.key.with_suffix(".pub").read_text(), mode=0o600)
    return server


def bootstrap(laptop: Laptop, server: Server, prod: Server, figures: Figures) -> None:
    """A bare server becomes one that takes the app: what is typed, and how long it takes."""
    began = time.monotonic()
    for text in PREPARED:
        laptop.ssh(f"root@{server.ip}", text).must()
    figures.add("bootstrap", SCRIPT, time.monotonic() - began)
    environment = {**laptop.environment(), "PYTHONPATH": str(REPO)}
    words = ["-c", "from receiver.entry import main; main()", "server:add", f"root@{prod.ip}", "--domain", DOMAIN]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *words, "--app", "x"], env=environment, cwd=laptop.home, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stdout.decode() + done.stderr.decode())
    figures.add("bootstrap", SHIPIT, time.monotonic() - began)


def laptop_commands(laptop: Laptop, prod: Server, figures: Figures, rounds: int) -> None:
    """A command of the client, all of it, on the connection that the one before has left; and a plain one of ssh."""
    runtime = tempfile.mkdtemp(prefix="shipit-", dir="/tmp")  # a socket's path is short
    environment = {**laptop.environment(), "PYTHONPATH": str(REPO), "XDG_RUNTIME_DIR": runtime}
    client = [sys.executable, "-c", "from receiver.entry import main; main()", "--remote", "prod:x", "apps:list"]
    for number in range(rounds * 3):
        for what, words in (("second", client), ("ssh", ["ssh", "prod", "apps:list"])):
            began = time.monotonic()
            subprocess.run(words, env=environment, cwd=laptop.home, stdout=subprocess.DEVNULL, check=True)
            if number:
                figures.add(f"client: {what}", SHIPIT, (time.monotonic() - began) * 1000)
    subprocess.run(["ssh", "-S", *Path(runtime).glob("shipit/*"), "-O", "exit", "prod"], env=environment, check=False)
    shutil.rmtree(runtime, ignore_errors=True)


def measure(trials: list[list[Trial]], rounds: int, save: Callable[[], None]) -> None:
    for pair in trials:
        say(f"{pair[0].way.title}: {rounds} rounds")
        for number in range(rounds):
            for step in (Trial.code, Trial.rollback, Trial.dependency, Trial.lost, Trial.bytes, Trial.memory):
                for trial in pair if number % 2 == 0 else reversed(pair):
                    step(trial)
        save()


@dataclass(frozen=True)
class Column:
    """A measure of the table. `ratio`: the most that shipit may take of the script's; `limit`: of its own."""

    what: str
    title: str
    unit: str
    ratio: float | None = None
    limit: float | None = None


COLUMNS = (
    Column("code", "a changed line → live", "s", ratio=1.0),
    Column("dependency", "a dependency added → live", "s", ratio=1.0),
    Column("rollback", "rollback → live", "s", ratio=0.5),
    Column("bytes", "on the wire", "KiB", ratio=1.1),
    Column("lost", "requests lost, a change", "", limit=0),
    Column("lost, rollback", "requests lost, a rollback", "", limit=0),
    Column("memory", "memory while it runs", "MiB"),
    Column("commands", "commands before the first time", ""),
)


def table(figures: Figures, ways: list[Way]) -> str:
    """For each way two lines of medians, and between them the ratio where there is a goal."""
    lines = [
        f"| | | {' | '.join(column.title for column in COLUMNS)} |", f"|{' --- |' * (len(COLUMNS) + 2)}",
    ]  # fmt: skip
    for way in ways:
        for who in SIDES:
            cells = [cell(figures, f"{way.app}: ", column, who) for column in COLUMNS]
            lines.append(f"| {way.title if who == SCRIPT else ''} | {who} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(figures: Figures, way: str, column: Column, who: str) -> str:
    numbers, theirs = figures.of(way + column.what, who), figures.of(way + column.what, SCRIPT)
    if not numbers:
        return "–"
    text = show(max(numbers) if column.limit == 0 else statistics.median(numbers), column.unit)
    if who == SHIPIT and column.ratio is not None and theirs:
        ratio = statistics.median(numbers) / statistics.median(theirs)
        text += f", {ratio:.2f} ×"
        text = text if ratio <= column.ratio else f"**{text}**"
    return f"**{text}**" if who == SHIPIT and column.limit is not None and max(numbers) > column.limit else text


def short(figures: Figures, facts: dict[str, str]) -> str:
    """For the README, one line for each way: shipit's median and its ratio to the script's; of requests and commands the
    script's, too. The last line says where it was measured."""
    columns = [column for column in COLUMNS if column.what not in ("memory", "lost, rollback")]
    lines = [f"| | {' | '.join(column.title for column in columns)} |", f"|{' --- |' * (len(columns) + 1)}"]
    for way in WAYS:
        if not figures.of(f"{way.app}: commands", SHIPIT):
            continue
        cells = []
        for column in columns:
            ours, theirs = (cell(figures, f"{way.app}: ", column, who) for who in (SHIPIT, SCRIPT))
            cells.append(ours if column.ratio is not None else f"{ours} (script: {theirs})")
        lines.append(f"| {way.title} | {' | '.join(cells)} |")
    rounds = f"{facts['rounds']} round{'s' if facts['rounds'] != '1' else ''}"
    measured = f"{rounds} at {facts['shipit']} on {facts['date'].split()[0]}; {facts['machine']}; {facts['hosts']}."
    return "\n".join([*lines, "", f"In bold: misses its goal. Medians of {measured}"])


def read(where: Path) -> tuple[Figures, dict[str, str]]:
    """What `write` has written."""
    whole = json.loads((where / "ways.json").read_text())
    facts = whole.pop("facts")
    return Figures(**whole), facts


def scripts(ways: list[Way]) -> str:
    """What is typed, both sides, so that everybody can judge it."""
    lines = []
    for way in ways:
        lines.append(f"{way.title}:\n\n```sh")
        for who, side in ((SCRIPT, way.script), (SHIPIT, way.shipit)):
            lines += [
                f"# {who}: ship, roll back",
                *(text.replace("{", "").replace("}", "") for text in (side.ship, side.back)),
            ]
        lines.append("```\n")
    return "\n".join(lines)


def main() -> int:
    words = argparse.ArgumentParser(
        prog="python -m benchmarks.ways_to_ship", description="The ways to ship side by side."
    )
    words.add_argument("--rounds", type=int, default=10, help="how often each thing is measured (default: 10)")
    words.add_argument("--ways", nargs="+", choices=[way.app for way in WAYS], help="only these")
    words.add_argument("--output", type=Path, default=HERE, help="where ways.md and ways.json go")
    words.add_argument("--table", action="store_true", help="measure nothing: print the README's table of ways.json")
    chosen = words.parse_args()
    if chosen.table:
        print(short(*read(chosen.output)))
        return 0
    ways = [way for way in WAYS if not chosen.ways or way.app in chosen.ways]
    figures = Figures()
    facts = {**machine(), "date": time.strftime("%Y-%m-%d %H:%M"), "load before": f"{os.getloadavg()[0]:.1f}"}
    with tempfile.TemporaryDirectory() as scratch:
        laptop = Laptop(snapshot.admin_key(), Path(scratch))
        servers: list[Server] = []
        try:
            say("booting three bare machines")
            servers += [boot(name, laptop) for name in ("script", "shipit", "forge")]
            server, prod, forge = servers
            laptop.know(server=f"deploy@{server.ip}", prod=f"shipit@{prod.ip}", forge=f"up@{forge.ip}")
            forge.sh(f"{FORGE} && install -o up -m 600 /root/.ssh/authorized_keys /home/up/.ssh/authorized_keys")
            for who in SIDES:
                forge.sh(f"su up -c 'git init -q --bare --initial-branch=main /home/up/{who}.git'")
            say("bootstrapping")
            bootstrap(laptop, server, prod, figures)
            trials = []
            for number, way in enumerate(ways):
                pair = []
                for who, its in ((SCRIPT, server), (SHIPIT, prod)):
                    sample = Sample(laptop, Path(scratch) / f"{way.app}-{who}")
                    sample.create()
                    packages = Packages(Path(scratch) / f"built-{way.app}-{who}", forge)
                    trial = Trial(way, who, laptop, its, forge.ip, 8001 + number, sample, packages, figures)
                    typed = trial.prepare(forge) + (len(PREPARED) if who == SCRIPT else 1)
                    trial.note("commands", typed)
                    trial.first()
                    pair.append(trial)
                trials.append(pair)

            def save() -> None:
                now = {**facts, "load after": f"{os.getloadavg()[0]:.1f}", "rounds": str(chosen.rounds)}
                write(chosen.output, figures, ways, now)

            laptop_commands(laptop, prod, figures, chosen.rounds)
            measure(trials, chosen.rounds, save)
        finally:
            for one in servers:
                one.close()
    print(short(*read(chosen.output)))
    return 0


def write(where: Path, figures: Figures, ways: list[Way], facts: dict[str, str]) -> None:
    where.mkdir(parents=True, exist_ok=True)
    whole = {"facts": facts, **asdict(figures)}
    (where / "ways.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    booted = ", ".join(f"{who} {spread(figures.of('bootstrap', who), 's')}" for who in SIDES)
    shared, alone = (spread(figures.of(f"client: {what}", SHIPIT), "ms") for what in ("second", "ssh"))
    commands = f"- `shipit apps:list` on a laptop, on the connection of the command before: {shared}; `ssh prod apps:list`: {alone}"
    told = "\n".join(f"- {name}: {value}" for name, value in {**facts, **figures.notes}.items())
    (where / "ways.md").write_text(
        "# The ways to ship\nWritten by `python -m benchmarks.ways_to_ship`; how it measures: README.md. Medians; of"
        " requests lost the most. In bold is what misses its goal: time ≤ 1.0 × the script's, a rollback ≤ 0.5 ×, bytes"
        f" ≤ 1.1 ×, no request lost.\n\n{table(figures, ways)}\n\n- a bare server made ready: {booted}\n{commands}\n{told}\n\n"
        f"# What is typed\n{scripts(ways)}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
