"""What qemu is told, what its machine finds, and whose the app's disk is. The machines themselves: contract/sources."""

from __future__ import annotations

import json
import os
import select
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.inside import diskimage, qemu
from receiver.inside.heirloom import Heir, Heirloom
from receiver.inside.machine import Lines
from receiver.inside.monitor import Monitor
from receiver.inside.qemu import Plan

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/machine"
LIMITS = {"memory": 0, "cpu": 0, "tasks": 0}


def plan(slug: Path, **changes: object) -> Plan:
    known = {"limits": LIMITS, "listen": "socket", "wish": {}, "cpus": 2, "kvm": False, "firmware": "bios", **changes}
    (slug / ".disk").mkdir(parents=True)
    (slug / ".disk/disk.json").write_text(json.dumps({"id": "0" * 64, "size": 2**30, "firmware": known["firmware"]}))
    process = {"limits": known["limits"], "listen": known["listen"]}
    made = qemu.planned(str(slug), process, known["wish"], int(str(known["cpus"])), kvm=bool(known["kvm"]))
    return made._replace(
        base="/slug/.disk/base.qcow2",
        port=20123 if made.guest_port else 0,
        environment="/tmp/env-7",
        monitor=5,
        data="/data/disk.raw" if dict(known["wish"]).get("data") else "",  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("plain", {}),
        ("kvm-with-limits", {"kvm": True, "limits": {"memory": 2048, "cpu": 150, "tasks": 0}, "cpus": 16}),
        ("data-and-port", {"wish": {"data": 1024, "port": 8000}}),
        ("uefi", {"firmware": "uefi"}),
        ("uefi-asked-for", {"wish": {"firmware": "uefi"}}),
        ("takes-no-requests", {"listen": "none", "cpus": 16}),
    ],
)
def test_qemu_is_told_this(tmp_path: Path, name: str, changes: dict[str, object]) -> None:
    text = "\n".join(map(shlex.quote, plan(tmp_path, **changes).argv())) + "\n"
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_config_var_is_on_qemus_command_line(tmp_path: Path) -> None:
    words = plan(tmp_path).argv()
    assert [word for word in words if "env" in word] == [f"name={qemu.CREDENTIAL},file=/tmp/env-7"]


def test_config_vars_come_through_a_shell_and_systemds_quoting_as_they_are(tmp_path: Path) -> None:
    env = {"PLAIN": "a b", "PEM": "one\ntwo\n", "NASTY": "\"'\\$HOME `id` !x\t#", "EMPTY": "", "UMLAUT": "ä"}
    (tmp_path / "env").write_text(qemu.environment(env))
    names = " ".join(env)
    script = f'. {tmp_path}/env; for name in {names}; do eval "printf \'%s\\0\' \\"\\$$name\\""; done'
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == list(env.values())


def test_the_console_is_told_as_lines_of_text(capfd: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for part in (b"\x1b[1mserves\x1b[0m o", b"ne\r\n\r\nlogin: ", b"\x00\x07x" + b"y" * 5000, b"tail", b""):
        lines.add(part)
    assert capfd.readouterr().out.splitlines() == ["serves one", "login: x" + "y" * 5000, "tail"]


def test_a_machine_listens_when_what_is_in_it_takes_a_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monitor = Monitor(ours)
        theirs.sendall(b'{"QMP": {}}\r\n{"return": {}}\n')
        assert monitor.read() and monitor.started
        monitor.probe(20123)
        row = "  TCP[%s]  11  127.0.0.1 20123  10.0.2.15  80  0  0"
        for state, port, listens in (("SYN_SENT", "20123", False), ("ESTABLISHED", "443", False),
                                     ("HOST_FORWARD", "20123", False), ("ESTABLISHED", "20123", True)):  # fmt: skip
            table = "Hub -1:\n" + (row % state).replace("20123", port)
            theirs.sendall(json.dumps({"return": table}).encode() + b"\n")
            assert monitor.read()
            assert monitor.listens is listens, (state, port)
        monitor.stop_probing()
        theirs.close()
        assert not monitor.read(), "it has ended"


# In qemu's place: it says on its console which machine it is, takes requests, and feels its power button.
QEMU = """\
#!%s
import json, os, re, resource, socket, sys, threading
words = sys.argv[1:]
mark = re.search("file=[^,]*/(v[0-9]+)/", " ".join(words))[1]
port = int(re.search("hostfwd=tcp:127.0.0.1:([0-9]+)", " ".join(words))[1])
monitor = socket.socket(fileno=int(re.search("fd=([0-9]+)", " ".join(words))[1]))
def say(what):
    monitor.sendall(json.dumps(what).encode() + b"\\r\\n")
fails = open("fails").read() if os.path.exists("fails") else ""
if fails == "broken":
    sys.exit("-drive file=disk.raw: Image is not in qcow2 format")
fails = fails if "kvm" in words else ""
if fails == "ends":
    sys.exit("Could not access KVM kernel module: No such device")
if fails == "aborts":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("error: failed to set MSR 0x10a", flush=True)
    os.abort()
if fails == "stands":
    say({"QMP": {}})
    for line in monitor.makefile():
        asked = json.loads(line)["execute"]
        say({"return": {"running": False, "status": "internal-error"} if asked == "query-status" else {}})
        if asked == "qmp_capabilities":
            print("KVM internal error. Suberror: 3", flush=True)
            say({"event": "STOP"})
with open(re.search("env/[^,]*file=(.*)|shipit.env,file=([^ ]*)", " ".join(words))[2]) as env:
    told = env.read()
data = open(re.search("file=([^,]*disk.raw)", " ".join(words))[1], "r+b")
before = data.read(4)
assert before != b"open", "two machines have the disk"
data.seek(0), data.write(b"open"), data.flush()
print("serves", mark, flush=True)
listener = socket.create_server(("127.0.0.1", port))
def serve():
    while True:
        pipe, _ = listener.accept()
        if pipe.recv(4096):
            pipe.sendall(f"HTTP/1.0 200 OK\\r\\n\\r\\n{mark} {told}".encode())
        pipe.close()
server = threading.Thread(target=serve, daemon=True)
say({"QMP": {}})
for line in monitor.makefile():
    asked = json.loads(line)
    if asked["execute"] == "qmp_capabilities":
        say({"return": {}})
        if os.path.exists("full"):
            say({"event": "STOP"})
        else:
            server.start()
    elif asked["execute"] == "query-status":
        say({"return": {"running": False, "status": "io-error"}})
    elif asked["execute"] == "cont":
        say({"return": {}})
        say({"event": "RESUME"})
        if os.path.exists("full"):
            say({"event": "STOP"})
        elif not server.ident:
            server.start()
    elif asked["execute"] == "human-monitor-command":
        say({"return": f"  TCP[ESTABLISHED]  11  127.0.0.1 {port}  10.0.2.15  80  0  0"})
    else:
        say({"return": {}})
    if asked["execute"] == "system_powerdown" and not os.path.exists("stubborn"):
        data.seek(0), data.write(b"shut"), data.close()
        print("ended well", flush=True)
        break
"""
LAUNCH = """\
import sys
from receiver.inside import diskimage, machine, qemu
place, number = sys.argv[1:]
qemu.QEMU, machine.KVM, machine.RESUME_EVERY = f"{place}/qemu", f"{place}/kvm", 0.6
process = {"limits": {"memory": 0, "cpu": 0, "tasks": 0}, "listen": "socket", "drain": 2}
sockets = f"{place}/run/v{number}"
raise SystemExit(machine.run(
    place, f"{place}/v{number}", number, "1", process, {"data": 1}, {"WORD": "a b"}, sockets, f"{sockets}/web.1.sock"
))
"""


class Launched:
    """A launcher with a machine of a release, as its unit has it."""

    def __init__(self, place: Path, number: int) -> None:
        self.socket = place / f"run/v{number}/web.1.sock"
        self.socket.parent.mkdir(parents=True)
        (place / f"v{number}/.disk").mkdir(parents=True)
        (place / f"v{number}/.disk/disk.json").write_text(json.dumps({"firmware": "bios"}))
        self.log = place / f"log{number}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(place), str(number)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=place,
            )  # fmt: skip

    def ask(self) -> str:
        """One request; it waits for as long as it has to."""
        until(self.socket.exists, self.log)
        with socket.socket(socket.AF_UNIX) as pipe:
            pipe.settimeout(60)
            until(lambda: pipe.connect_ex(str(self.socket)) == 0, self.log)
            pipe.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while more := pipe.recv(4096):
                answer += more
        assert b"\r\n\r\n" in answer, self.log.read_text()
        return answer.decode().split("\r\n\r\n")[1]

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def until(holds: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[[int], Launched]]:
    (tmp_path / "qemu").write_text(QEMU % sys.executable)
    (tmp_path / "qemu").chmod(0o755)
    (tmp_path / "kvm").touch()
    (tmp_path / "data").mkdir()
    launched: list[Launched] = []

    def one(number: int) -> Launched:
        launched.append(Launched(tmp_path, number))
        return launched[-1]

    yield one
    for each in launched:
        # Not killed, so that its machine ends with it: there is no control group here.
        if each.process.poll() is None:
            each.end()


def test_requests_to_the_old_machine_wait_for_the_new_one_and_for_the_old_one_again(
    launch: Callable[[int], Launched],
) -> None:
    old = launch(7)
    assert old.ask() == 'v7 PORT="80"\nWORD="a b"\n'
    new = launch(8)
    until(lambda: "ended well" in old.log.read_text(), old.log)
    assert old.ask().startswith("v8 "), "through the old one's socket"
    assert new.ask().startswith("v8 ")
    assert new.end() == 0
    assert old.ask().startswith("v7 "), "which has its disk again"
    assert old.end() == 0
    assert (old.log.read_text().split("\n"), new.log.read_text().split("\n")) == (
        ["serves v7", "ended well", "serves v7", "ended well", ""], ["serves v8", "ended well", ""],
    )  # fmt: skip
    assert not list(Path("/tmp").glob(f"env-{old.process.pid}")), "the config vars are in no file any more"


def test_a_machine_that_does_not_feel_its_power_button_gives_the_disk_when_its_time_is_over(
    launch: Callable[[int], Launched], tmp_path: Path
) -> None:
    old = launch(7)
    assert old.ask().startswith("v7 ")
    (tmp_path / "stubborn").touch()
    # What this stand-in for qemu has on the disk says that it is open still: nobody has shut it.
    new = launch(8)
    until(lambda: "two machines have the disk" in new.log.read_text(), new.log)
    assert "ended well" not in old.log.read_text()
    (tmp_path / "stubborn").unlink()


@pytest.mark.parametrize("how", ["ends", "aborts", "stands"])
def test_where_kvm_fails_the_machine_is_translated_and_the_log_says_so(
    launch: Callable[[int], Launched], tmp_path: Path, how: str
) -> None:
    (tmp_path / "fails").write_text(how)
    old = launch(7)
    assert old.ask().startswith("v7 ")
    new = launch(8)
    assert new.ask().startswith("v8 ") and new.end() == 0
    assert old.ask().startswith("v7 "), "it has the disk again, and does not try KVM again"
    assert old.end() == 0
    qemus, *lines = old.log.read_text().splitlines()
    why = "qemu did not start this machine with KVM, for the reason above"
    if how != "ends":
        why = "KVM cannot run this machine, as qemu says above"
    assert ("KVM" in qemus or "MSR" in qemus) and lines == [
        f"shipit: {why}: qemu translates the machine (TCG), about ten times slower.",
        "serves v7", "ended well", "serves v7", "ended well",
    ]  # fmt: skip


def test_a_disk_that_qemu_does_not_take_is_not_called_a_fault_of_kvm(
    launch: Callable[[int], Launched], tmp_path: Path
) -> None:
    (tmp_path / "fails").write_text("broken")
    only = launch(7)
    assert only.process.wait(60) == 1
    qemus = "-drive file=disk.raw: Image is not in qcow2 format"
    first, told, again, last = only.log.read_text().splitlines()
    assert (first, again) == (qemus, qemus) and "for the reason above" in told and "cannot" not in told
    assert last == "shipit: qemu did not start it without KVM either, so KVM is not the cause."


def test_a_machine_that_finds_the_servers_disk_full_goes_on_when_there_is_room(
    launch: Callable[[int], Launched], tmp_path: Path
) -> None:
    (tmp_path / "full").touch()
    only = launch(7)
    told = "shipit: the server's disk is full; the machine waits until there is room."
    until(lambda: told in only.log.read_text(), only.log)
    (tmp_path / "full").unlink()
    assert only.ask().startswith("v7 ") and only.end() == 0
    assert only.log.read_text().splitlines() == ["serves v7", told, "ended well"], "which is said once"


def test_without_kvm_the_log_says_that_the_machine_is_translated(
    launch: Callable[[int], Launched], tmp_path: Path
) -> None:
    (tmp_path / "kvm").unlink()
    only = launch(7)
    assert only.ask().startswith("v7 ") and only.end() == 0
    told = f"shipit: there is no {tmp_path}/kvm that this app may use: qemu translates the machine (TCG), about ten"
    assert only.log.read_text().splitlines() == [f"{told} times slower.", "serves v7", "ended well"]


def test_without_qemu_the_log_names_how_to_install_it(launch: Callable[[int], Launched], tmp_path: Path) -> None:
    (tmp_path / "qemu").unlink()
    only = launch(7)
    assert only.process.wait(60) == 1
    told = "On the server, once, as root: apt install --no-install-recommends qemu-system-x86"
    assert only.log.read_text() == f"shipit: This server has no qemu any more. {told}\n"


def test_what_a_disk_needs_to_start_by_uefi_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(diskimage, "UEFI", str(tmp_path / "no.fd"))
    assert diskimage.no_firmware("bios") == ""
    assert "apt install --no-install-recommends ovmf" in diskimage.no_firmware("uefi")


class Holder:
    """A launcher that has the disk or waits for it, as a thread."""

    def __init__(self, place: Path, number: int) -> None:
        self.heirloom = Heirloom(str(place / "data"), str(place), number, f"/run/v{number}", 3)
        self.woken, self._wake = os.pipe()
        self.ended = False
        self.has = threading.Event()
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        if self.heirloom.take(self.woken, lambda: self.ended):
            self.has.set()

    def heir(self) -> Heir | None:
        """Whoever asks next, as a machine that runs learns of it."""
        assert select.select([self.heirloom.fileno()], [], [], 20)[0]
        return self.heirloom.asked()

    def end(self) -> None:
        """As when its process ends: all that it holds goes."""
        self.ended = True
        os.write(self._wake, b"x")
        self.thread.join(20)
        self.heirloom.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "data").mkdir()
    yield tmp_path


def test_a_newer_release_gets_the_disk_and_the_older_one_has_it_again_when_that_ends(place: Path) -> None:
    old = Holder(place, 7)
    assert old.has.wait(20)
    disk = place / "data/disk.raw"
    assert (disk.stat().st_size, disk.stat().st_mode & 0o777) == (3 * 2**20, 0o600)
    assert (place / "disk").stat().st_mode & 0o777 == 0o600, "nobody else may ask"
    new = Holder(place, 8)
    heir = old.heir()
    assert heir is not None and heir.path == "/run/v8" and not new.has.is_set(), "the old machine runs still"
    old.heirloom.give(heir)
    assert new.has.wait(20)
    back: list[bool] = []
    waits = threading.Thread(target=lambda: back.append(heir.wait(old.woken, lambda: old.ended)))
    waits.start()
    new.end()
    waits.join(20)
    assert back == [True]
    again = Holder(place, 7)
    assert again.has.wait(20)
    again.end()
    old.end()


def test_an_older_release_waits_until_the_newer_one_has_ended(place: Path) -> None:
    new = Holder(place, 8)
    assert new.has.wait(20)
    old = Holder(place, 7)
    assert new.heir() is None and not old.has.is_set()
    new.end()
    assert old.has.wait(20)
    old.end()


def test_who_is_told_to_end_while_it_waits_ends(place: Path) -> None:
    new, old = Holder(place, 8), Holder(place, 7)
    assert new.has.wait(20) or old.has.wait(1)
    for one in (old, new):
        one.end()
        assert not one.thread.is_alive()


def test_the_disk_grows_and_does_not_shrink(place: Path) -> None:
    disk = place / "data/disk.raw"
    disk.write_bytes(b"x" * 2**22)
    first = Holder(place, 1)
    assert first.has.wait(20)
    assert disk.stat().st_size == 2**22
    first.end()
