"""Random changes of an app, random kills, and after each of them all that must hold (model.py), under constant load.

    SHIPIT_TEST_SEED=7 SHIPIT_TEST_STEPS=500 sudo -E tests/run faults -k model

A failure prints the seed and every step until then.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from host.apps import MAIN, build, say, unwell
from lab.background import Background, wait_for
from lab.client import Client, Report
from lab.host import Host

from faults.model import Broken, Content, Model, Seen, Wish
from faults.points import WORKER, go_on, held_at, kill, wait_until_held
from receiver.ledger.ledger import Ledger
from receiver.model import Change
from receiver.names import AppName
from receiver.paths import Layout
from receiver.story.checkpoint import NAMES

SEED = int(os.environ.get("SHIPIT_TEST_SEED", "1"))
STEPS = int(os.environ.get("SHIPIT_TEST_STEPS", "14"))
APP = AppName("model")
COLOURFUL = MAIN.replace(
    'MARK = open("mark").read().strip()',
    'MARK = open("mark").read().strip() + " " + os.environ.get("COLOUR", "plain")',
)
GOOD = {"main.py": COLOURFUL, "Procfile": "web: python main.py $SOCKET\nrelease: true\n"}
# What is committed on top of it, and whether that is seen only after the release was opened.
MISTAKES = {
    "a failing build": ({"shipit.yml": build("exit 3")}, True),
    "a crashing app": ({"main.py": "raise SystemExit('broken on purpose')\n"}, True),
    "a bad manifest": ({"shipit.yml": "keep: [\n"}, False),
}
BEHIND_SSH = {
    "sshd": "^sshd: shipit",
    "gateway": "libexec/gateway",
    "receive-pack": "receive-pack",
    "hook": "hooks/(pre|post)-receive",
    "agent": "libexec/agent",
    "builder": "libexec/builder",
}
PROXY = {"nginx worker": "nginx: worker process", "nginx master": "nginx: master process"}
PARTIES = ("client", "worker", *BEHIND_SSH, *PROXY, "new process", "live process", "power", "reboot")


@dataclass(frozen=True)
class Fault:
    """Who is killed, and when: at a checkpoint of the worker, or so many seconds after the change began."""

    party: str
    at: str | float

    def __str__(self) -> str:
        return f"kill {self.party} at {self.at if isinstance(self.at, str) else f'{self.at:.2f} s'}"


class World:
    """The app on its server, the laptop, the dice, and the model that goes along."""

    def __init__(self, host: Host, client: Client, dice: random.Random) -> None:
        self.host, self.client, self.dice = host, client, dice
        self.model = Model()
        self.repo = client.repo(APP, {**self.good(), "mark": "m0\n"})
        # What is at HEAD: what it would be if pushed, the mistake in it otherwise.
        self.mark, self.mistake = "m0", ""
        self.counter = 0
        self.story: list[str] = []
        # How often a fault was drawn, and how often it met somebody.
        self.drawn = self.struck = 0
        self.settled = True
        # By place, what was neither kept nor gone after the last step.
        self.left: dict[str, set[str]] = {"slugs": set(), "config": set()}

    # -- choosing

    def next_wish(self) -> Wish:
        """Any change; after something was killed and not mended, a push, which must mend it."""
        choose: list[tuple[int, Callable[[], Wish]]] = [
            (5, self.new_commit), (2, self.mistaken_commit), (1, self.same_again), (3, self.rollback),
            (1, self.rollback_to_nothing), (2, self.config), (2, self.scale), (1, self.restart),
        ]  # fmt: skip
        if not self.settled or not self.model.current:
            return self.new_commit()
        return self.dice.choices([make for _, make in choose], [weight for weight, _ in choose])[0]()

    def next_fault(self, wish: Wish) -> Fault | None:
        # The first push makes the app: before it there is nothing to hold anything against.
        if not self.settled or not self.model.current or wish.content is None or self.dice.random() < 0.4:
            return None
        moment = self.dice.choice(NAMES) if self.dice.random() < 0.6 else self.dice.uniform(0, 1.5)
        return Fault(self.dice.choice(PARTIES), moment)

    def push(self, what: str) -> Wish:
        commit, current = self.repo.head, self.model.current
        if self.mistake:
            return Wish(f"push {what}", ("push",), opens=MISTAKES[self.mistake][1])
        if current and self.model.content.commit == commit:
            return Wish(f"push {what}", ("push",), self.model.content, self.model.webs[current], idle=True)
        content = Content(self.mark, self.model.content.colour if current else "plain", commit)
        return Wish(f"push {what}", ("push",), content, self.model.scale or 1)

    def good(self) -> dict[str, str]:
        """The release that this one will replace is kept warm, or not."""
        return {**GOOD, "shipit.yml": f"keep: 3\nwarm: {self.dice.choice((0, 600))}\n"}

    def new_commit(self) -> Wish:
        self.counter += 1
        self.mark, self.mistake = f"m{self.counter}", ""
        self.repo.commit({**self.good(), "mark": self.mark + "\n"})
        return self.push(self.mark)

    def mistaken_commit(self) -> Wish:
        self.mistake = self.dice.choice(sorted(MISTAKES))
        self.repo.commit({**self.good(), **MISTAKES[self.mistake][0]}, self.mistake)
        return self.push(self.mistake)

    def same_again(self) -> Wish:
        return self.push("the same again")

    def rollback(self) -> Wish:
        model = self.model
        number = self.dice.choice([0, *model.records])
        target = number or model.previous_good()
        words = ("rollback", APP, *([f"v{number}"] if number else []))
        what = f"rollback to v{target}" + ("" if number else " by default")
        if not model.can_return_to(target):
            return Wish(what, words, opens=False)
        web = model.scale or model.webs[target]
        return Wish(what, words, model.contents[target], web, change=Change.ROLLBACK)

    def rollback_to_nothing(self) -> Wish:
        number = self.model.next_number() + 6
        return Wish(f"rollback to v{number}, which never was", ("rollback", APP, f"v{number}"), opens=False)

    def config(self) -> Wish:
        now, colour = self.model.content, self.dice.choice(("plain", "red", "green", "blue"))
        web = self.model.webs[self.model.current]
        content = Content(now.mark, colour, now.commit)
        if colour == "plain":
            words = ("config:unset", APP, "COLOUR")
            if now.colour == "plain":
                return Wish("unset what is not set", words, opens=False)
            return Wish("config:unset", words, content, web, change=Change.CONFIG)
        words = ("config:set", APP, f"COLOUR={colour}")
        return Wish(f"set {colour}", words, content, web, change=Change.CONFIG, idle=colour == now.colour)

    def scale(self) -> Wish:
        web = self.dice.randint(1, 3)
        idle = web == self.model.webs[self.model.current]
        words = ("ps:scale", APP, f"web={web}")
        return Wish(f"scale to {web}", words, self.model.content, web, change=Change.SCALE, idle=idle)

    def restart(self) -> Wish:
        web = self.model.webs[self.model.current]
        return Wish("restart", ("ps:restart", APP), self.model.content, web, change=Change.RESTART)

    # -- doing

    def step(self) -> None:
        """One change, disturbed or not, and the judgement of it."""
        before = self.model.current
        wish = self.next_wish()
        fault = self.next_fault(wish)
        mending, nginx = not self.settled, self.nginx_workers()
        self.story.append(f"v{before}: {wish.what}" + (f", {fault}" if fault else ""))
        with self.client.load(APP, threads=2, pause=0.02) as load:
            code, killed = self.carry_out(wish, fault)
            self.wait_until_quiet()
            report = load.stop()
        self.settled = not fault or self.dice.random() < 0.5 or not killed
        if fault and self.settled:
            self.host.run("shipit", "doctor", "--fix")
        self.drawn, self.struck = self.drawn + bool(fault), self.struck + bool(killed)
        seen = self.look(code, killed, before, report, reloaded=nginx != self.nginx_workers())
        self.story[-1] += f" -> v{seen.current}, exit code {code}, {len(seen.lost)} lost"
        self.model.judge(wish, seen)
        if self.settled:
            wait_for("doctor to find nothing", lambda: not unwell(self.host))
            self.nothing_is_left(pruned=seen.current != before and not killed)
        if mending and wish.content and not fault:
            assert seen.code == 0
        answer = self.client.get(APP)
        if answer.body != self.model.content.body:
            raise Broken(f"v{seen.current} answers {answer.status} {answer.body[:80]!r}")

    def carry_out(self, wish: Wish, fault: Fault | None) -> tuple[int, str]:
        """The asker's exit code, and who was killed: nobody, if the change was over before."""
        with ExitStack() as stack:
            if fault and isinstance(fault.at, str):
                stack.enter_context(held_at(self.host, fault.at))
            change = self.repo.start_push() if wish.words == ("push",) else self.client.start_ssh(*wish.words)
            killed = ""
            if fault and self.wait_for_moment(fault, change):
                killed = fault.party
                self.kill(fault.party, change)
                if self.host.leader and isinstance(fault.at, str):
                    go_on(self.host)
            if killed in ("power", "reboot"):
                change.kill()
            code = change.wait(90).code
            if killed and code != 0:
                self.story[-1] += f" [{change.so_far()[-300:]!r}]"
        return code, killed

    def wait_for_moment(self, fault: Fault, change: Background) -> bool:
        if isinstance(fault.at, str):
            return wait_until_held(self.host, change)
        time.sleep(fault.at)
        return change.process.poll() is None

    def kill(self, party: str, change: Background) -> None:
        if party == "client":
            change.kill()
        elif party == "power":
            self.host.power_cut()
        elif party == "reboot":
            self.host.reboot()
        elif party in ("new process", "live process"):
            ledger = self.ledger()
            number = ledger.release(self.model.current).runs_as if party == "live process" else self.model.next_number()
            unit = f"shipit-{APP}-web-v{number}@*.service"
            self.host.run("systemctl", "kill", "--signal=KILL", unit, check=False)
        elif party == "worker":
            self.host.run("pkill", "-KILL", "-x", WORKER, check=False)
        else:
            kill(self.host, {**BEHIND_SSH, **PROXY}[party])

    # -- looking

    def wait_until_quiet(self) -> None:
        """Nobody is at work on the server any more, and the app answers."""
        work = "libexec/gateway [a-z]|receive-pack"
        wait_for("the work to end", lambda: not self.host.run("pgrep", "-f", work, check=False).ok, timeout=90)
        if self.model.current or self.ledger().current_number():
            wait_for("the app to answer", self.answers, timeout=60)

    def answers(self) -> bool:
        try:
            return self.client.get(APP, timeout=5).status == 200
        except OSError:
            return False

    def ledger(self) -> Ledger:
        return Ledger(Layout(self.host.root).app(APP))

    def nginx_workers(self) -> str:
        """Their pids, which a reload changes."""
        return self.host.run("pgrep", "-f", "nginx: worker process$", check=False).out

    def look(self, code: int, killed: str, before: int, report: Report, *, reloaded: bool) -> Seen:
        ledger = self.ledger()
        records = {record.number: record for record in ledger.releases()}
        current = ledger.current_number()
        went = {"live process": before, "new process": max([0, *self.model.records]) + 1}
        # A reload closes kept connections that are idle; who sends on one just then has to ask again (docs/proxy.md).
        lost = [str(one) for one in report.failures if not (reloaded and one.reused and one.what[:3].isalpha())]
        return Seen(
            current=current,
            raw={number: ledger.paths.release(number).record.read_bytes() for number in records},
            records=records,
            whole=frozenset(number for number, record in records.items() if record.slug and ledger.is_whole(record)),
            scale=dict(ledger.state().formation).get("web", 0),
            answers=[body for body in report.by_body if before and not body.startswith("<")],
            code=code,
            disturbed=bool(killed),
            settled=self.settled,
            lost=lost if before else [],
            cut=killed in (*PROXY, "power", "reboot") or went.get(killed) in (before, current),
        )

    def nothing_is_left(self, *, pruned: bool) -> None:
        """Of what is not kept nothing is on the disk, and of what is not live nothing runs or starts at boot.

        `pruned`: a release went live, and nobody was killed who would have pruned after it; else the next one does.
        """
        ledger = self.ledger()
        kept = {f"v{number}" for number in ledger.kept()}
        for place in ("slugs", "config"):
            there = set(self.host.run("ls", str(Layout().app(APP).dir / place)).out.split())
            left = {name.partition(".")[0] for name in there} - kept
            # What still finished its requests was left to the pruning of the next release.
            if pruned and left & self.left[place]:
                raise Broken(f"left in {place}: {sorted(left)}; kept are {sorted(kept)}")
            self.left[place] = left
        units = self.host.sh(f"cd /etc/systemd/system; ls -d shipit-{APP}-web-v*@.service").out.split()
        current = ledger.release(ledger.current_number())
        warm = {f"v{ledger.release(current.previous).runs_as}"} if current.warm and current.previous else set()
        wanted = {f"shipit-{APP}-web-{name}@.service" for name in {f"v{current.runs_as}", *warm}}
        if not set(units) <= wanted or f"shipit-{APP}-web-v{current.runs_as}@.service" not in units:
            raise Broken(f"units are left: {units}; wanted are {sorted(wanted)}")
        if self.host.run("pgrep", "-u", f"build-{APP}", check=False).ok:
            raise Broken("a build goes on")


@pytest.mark.slow
def test_whatever_is_asked_and_killed_the_app_is_old_or_new_and_the_next_push_works(host: Host, client: Client) -> None:
    world = World(host, client, random.Random(SEED))
    try:
        for _ in range(STEPS):
            world.step()
        if not world.settled:
            world.step()
        assert world.struck or world.drawn < 4, f"{world.drawn} faults were drawn, and none met anybody"
        assert say(client, "releases", APP, check=True).out
    except Exception as error:
        steps = "\n".join(f"  {number}. {line}" for number, line in enumerate(world.story, 1))
        raise Broken(f"{error}\nwith SHIPIT_TEST_SEED={SEED}, after these steps:\n{steps}") from error
    print(f"\nSHIPIT_TEST_SEED={SEED}:", *world.story, sep="\n  ")
