"""What every engine promises, as a program that runs on a machine with shipit: `promises.py NAME` ends with 0 if it holds.

It asks engines/all.py for what runs here, and nothing else: no systemctl, no supervisord. So a promise that only one
engine keeps shows. The app is made as the agent makes it; its releases are made by hand, without a build.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pwd
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from receiver import paths as shipits
from receiver.engines import all as all_engines
from receiver.engines.base import Engine, Job, Logs, Machine, Plans, ProcessState, ProcessStatus, job_name
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Check, CheckKind, Limits, Listen, ProcessType, Release, Status
from receiver.names import AppName, TypeName
from receiver.paths import SHIPIT_USER, Layout, app_user
from receiver.root import accounts

APP, WEB, WORK = AppName("con-tract"), TypeName("web"), TypeName("work")
NO_LIMITS = Limits()
LAYOUT = Layout()
PATHS = LAYOUT.app(APP)
ENGINES = all_engines.here(LAYOUT)
# Answers with its release; says so when it is told to end, and takes as long for that as $SLOW says.
SERVER = """
import os, signal, socket, time
where = os.environ["SOCKET"]
server = socket.socket(socket.AF_UNIX)
server.bind(where)
os.chmod(where, 0o660)
server.listen(16)
def end(*_):
    print("told to end", flush=True)
    time.sleep(float(os.environ.get("SLOW", "0")))
    open(os.environ["DATA_DIR"] + "/ended-" + os.environ["SHIPIT_RELEASE"], "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, end)
print("listens as", os.environ["SHIPIT_RELEASE"], flush=True)
while True:
    connection, _ = server.accept()
    try:
        connection.sendall(os.environ["SHIPIT_RELEASE"].encode())
    except OSError:
        pass
    connection.close()
"""
PYTHON = "exec /usr/bin/python3 -u"
STUBBORN = "trap '' TERM; while :; do sleep 1; done"


@contextmanager
def as_shipit() -> Iterator[Ledger]:
    """The ledger, written by whom it belongs to."""
    user = pwd.getpwnam(SHIPIT_USER)
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield Ledger(PATHS)
    finally:
        os.seteuid(0)
        os.setegid(0)


def release(
    command: str = f"{PYTHON} server.py", *, count: int = 1, env: Sequence[str] = (), drain: int = 20
) -> Release:
    """A release with a slug, ready to be started: `web` listens on its socket, `work` only runs."""
    web = ProcessType(WEB, command, Listen.SOCKET, Check(CheckKind.UPTIME), drain=drain)
    work = ProcessType(WORK, "exec sleep 9999", Listen.NONE, Check(CheckKind.UPTIME))
    with as_shipit() as ledger:
        made = ledger.open_release(Change.DEPLOY, "test", processes=(web, work), formation=((WEB, count), (WORK, 1)))
        made = ledger.save(replace(made, slug=made.number, environment=made.number))
    of = PATHS.release(made.number)
    of.slug.mkdir(mode=0o755)
    (of.slug / "server.py").write_text(SERVER)
    of.config.write_text(json.dumps(dict(word.split("=", 1) for word in env)))
    of.config.chmod(0o600)
    return made


def job(
    command: str, *, timeout: int = 30, env: Sequence[str] = (), limits: Limits = NO_LIMITS, name: str = "aa"
) -> Job:
    """A command of the app, as `shipit run` makes it."""
    made = release(env=env)
    run = name * 20
    with as_shipit():
        PATHS.runs.mkdir(exist_ok=True)
        (PATHS.runs / f"{run}.json").write_text(json.dumps({"command": command}))
    return Job(
        name=job_name("run", APP, made.number, run), app=APP, user=app_user(APP), release=made,
        argv=(str(shipits.PYTHON), "-IS", str(shipits.LAUNCH), f"--run={run}", APP, str(made.number)),
        cwd=PATHS.data, writable=(PATHS.data, PATHS.sockets), timeout=timeout,
        config=PATHS.release(made.number).config, limits=limits,
    )  # fmt: skip


def run_job(wanted: Job, given: bytes = b"") -> tuple[int, str]:
    """The exit code and what was printed."""
    source, feed = os.pipe()
    os.write(feed, given)
    os.close(feed)
    with open("/run/contract-out", "w+b") as out:  # noqa: PTH123
        code = ENGINES.run_job(wanted, source, out.fileno(), out.fileno())
        os.close(source)
        out.seek(0)
        return code, out.read().decode()


def asked(number: int, index: int = 1) -> str:
    """What answers on a process's socket; nothing where nobody does."""
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(str(PATHS.release(number).socket(WEB, index)))
            return peer.recv(100).decode()
        except OSError:
            return ""


def wait_for(what: str, probe: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"{what}: {ENGINES.processes(APP)}"
        time.sleep(0.05)


def known(number: int, kind: TypeName = WEB) -> list[ProcessStatus]:
    return [p for p in ENGINES.processes(APP) if p.release == number and p.process == kind]


def running(number: int, kind: TypeName = WEB) -> list[ProcessStatus]:
    return [p for p in known(number, kind) if p.state is ProcessState.RUNNING and p.pid]


def memory_is_counted() -> bool:
    """Whether systemd knows and bounds the memory of a unit on this kernel (control groups of version 2)."""
    known = Path("/sys/fs/cgroup/cgroup.controllers")
    return all_engines.machine() != "systemd" or (known.exists() and "memory" in known.read_text().split())


def lives(pattern: str) -> bool:
    """Whether any process has this in its command line."""
    mine = os.getpid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != mine:
            try:
                if pattern.encode() in (entry / "cmdline").read_bytes().replace(b"\0", b" "):
                    return True
            except OSError:
                continue
    return False


@contextmanager
def started(made: Release) -> Iterator[Release]:
    ENGINES.start(made)
    try:
        wait_for("it to run", lambda: len(running(made.number)) == made.count(WEB) and running(made.number, WORK))
        wait_for("answers", lambda: all(asked(made.number, index + 1) for index in range(made.count(WEB))))
        yield made
    finally:
        ENGINES.stop(APP, made.number, wait=True)


# -- the promises


def an_engine_is_here_and_says_what_it_can() -> None:
    engine = ENGINES.of(release())
    assert isinstance(engine, Engine) and isinstance(engine, Machine) and isinstance(engine, Logs), engine
    assert isinstance(engine, Plans) and engine.name == all_engines.machine()
    assert all(hint for hint in vars(all_engines.hints()).values() if isinstance(hint, str))
    # supervisord calls a program running when it has been up for a second.
    wait_for("all services", lambda: all(service.well for service in ENGINES.services()))
    assert ENGINES.services()


def a_release_starts_beside_another() -> None:
    with started(release()) as old, started(release(count=2)) as new:
        assert (asked(old.number), asked(new.number), asked(new.number, 2)) == (old.name, new.name, new.name)
        assert {p.release for p in ENGINES.processes(APP)} == {old.number, new.number} == ENGINES.defined(APP)
        before = {p.pid for p in running(new.number)}
        ENGINES.start(new)
        assert {p.pid for p in running(new.number)} == before, "a start can be repeated"
    assert ENGINES.defined(APP) == set()


def each_process_tells_what_it_is() -> None:
    with started(release(count=2)) as made:
        found = sorted(running(made.number), key=lambda p: p.index)
        assert [(p.process, p.index, p.restarts) for p in found] == [(WEB, 1, 0), (WEB, 2, 0)]
        for process in found:
            line = Path(f"/proc/{process.pid}/cmdline")
            wait_for("the command itself", lambda line=line: b"server.py" in line.read_bytes())  # type: ignore[misc]
            assert abs(time.time() - process.since) < 60, process
            assert process.memory > 2**20 or not memory_is_counted(), process


def a_stop_waits_until_a_process_has_ended_by_itself() -> None:
    with started(release(env=["SLOW=1.5"])) as made:
        began = time.monotonic()
        ENGINES.stop(APP, made.number, wait=True)
        assert time.monotonic() - began > 1.4
        assert (PATHS.data / f"ended-{made.name}").exists() and not known(made.number)


def a_stop_that_does_not_wait_lets_the_drain_go_on() -> None:
    with started(release(env=["SLOW=6"])) as made:
        ENGINES.stop(APP, made.number, wait=False)
        assert not (PATHS.data / f"ended-{made.name}").exists()
        assert [p.state for p in known(made.number)] == [ProcessState.STOPPING]
        assert made.number not in ENGINES.defined(APP), "nothing would start it again"
        wait_for("the end", lambda: (PATHS.data / f"ended-{made.name}").exists() and not known(made.number))


def what_does_not_end_within_its_drain_is_killed() -> None:
    made = release(STUBBORN, drain=1)
    ENGINES.start(made)
    wait_for("it to run", lambda: running(made.number))
    began = time.monotonic()
    ENGINES.stop(APP, made.number, wait=True)
    assert time.monotonic() - began < 12 and not known(made.number)


def a_stop_of_what_is_not_there_does_nothing() -> None:
    ENGINES.stop(APP, 98765, wait=True)
    assert ENGINES.defined(APP) == set()


def a_killed_process_comes_back() -> None:
    with started(release()) as made:
        (process,) = running(made.number)
        os.kill(process.pid, 9)
        wait_for("another", lambda: [p.pid for p in running(made.number)] not in ([], [process.pid]))
        wait_for("an answer", lambda: asked(made.number) == made.name)
        (again,) = running(made.number)
        assert again.restarts == 1, again


def a_restart_is_of_one_type_and_in_place() -> None:
    with started(release(count=2)) as made:
        web, work = ({p.pid for p in running(made.number, kind)} for kind in (WEB, WORK))
        ENGINES.restart(made, WEB)
        wait_for("both", lambda: len(running(made.number)) == 2)
        assert not web & {p.pid for p in running(made.number)}
        assert work == {p.pid for p in running(made.number, WORK)}


def what_a_process_prints_is_found() -> None:
    with started(release()) as made:
        said = lambda: ENGINES.last_lines(made, WEB, 1, 5)  # noqa: E731
        wait_for("its line", lambda: f"listens as {made.name}" in said())
        assert ENGINES.last_lines(made, WEB, 9, 5) == []
        ENGINES.stop(APP, made.number, wait=True)
        wait_for("its last line", lambda: "told to end" in said())


def what_would_be_written_is_shown_and_not_written() -> None:
    made = release()
    assert ENGINES.files(made) and ENGINES.defined(APP) == set()


def a_job_ends_with_its_own_exit_code() -> None:
    for script, code in (("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)):
        assert run_job(job(script))[0] == code, script


def a_job_is_its_user_with_a_clean_environment_its_input_and_its_config() -> None:
    os.environ["CANARY"] = "of the agent"
    code, said = run_job(job("id -un; env; cat", env=["A=secret"]), b"given")
    assert code == 0 and said.startswith(f"{app_user(APP)}\n") and said.endswith("given"), said
    assert "\nA=secret\n" in said and "CANARY" not in said


def a_job_out_of_time_ends_with_124_and_leaves_no_process() -> None:
    began = time.monotonic()
    script = "setsid sh -c 'trap \"\" TERM; exec sleep 98765' & sleep 98765"
    assert run_job(job(script, timeout=1))[0] == 124
    assert time.monotonic() - began < 15 and not lives("sleep 98765")


def a_daemon_that_a_job_leaves_behind_is_killed() -> None:
    assert run_job(job("(setsid setsid sleep 87654 </dev/null >/dev/null 2>&1 &) ; sleep 0.2; exit 0"))[0] == 0
    assert not lives("sleep 87654")


def a_job_can_be_stopped_by_its_name_and_an_unknown_one_is_no_error() -> None:
    wanted = job("sleep 76543")
    timer = threading.Timer(1.0, ENGINES.stop_job, [wanted.name])
    timer.start()
    began = time.monotonic()
    assert run_job(wanted)[0] == 143
    timer.join()
    assert time.monotonic() - began < 15 and not lives("sleep 76543")
    ENGINES.stop_job(job_name("run", APP, 1, "nobody"))


def two_jobs_run_at_once() -> None:
    codes: list[int] = []
    quiet = os.open(os.devnull, os.O_RDWR)
    jobs = [job(f"sleep 0.5; exit {number}", name=f"a{number}") for number in (4, 5)]
    threads = [
        threading.Thread(target=lambda one=one: codes.append(ENGINES.run_job(one, quiet, quiet, quiet))) for one in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [4, 5]


def a_job_that_wants_too_much_memory_does_not_get_it() -> None:
    if not memory_is_counted():
        sys.exit(77)
    script = "exec /usr/bin/python3 -c 'x = bytearray(400 << 20); print(len(x))'"
    assert run_job(job(script))[0] == 0
    code, said = run_job(job(script, limits=Limits(memory=100)))
    assert code != 0 and "419430400" not in said, said


def what_boots_is_chosen() -> None:
    """The machine is started again after this; `the_chosen_one_came_up` is asked then."""
    ENGINES.prepare(APP)
    for made in (release(), release()):
        ENGINES.start(made)
        with as_shipit() as ledger:
            ledger.commit(ledger.finish(made, Status.LIVE))
        ENGINES.boot_with(APP, made)
    wait_for("both", lambda: asked(made.number) and asked(made.number - 1))
    Path("/root/boots").write_text(str(made.number))


def the_chosen_one_came_up() -> None:
    number = int(Path("/root/boots").read_text())
    wait_for("it", lambda: asked(number) == f"v{number}", 60)
    assert not asked(number - 1) and not running(number - 1), "the other one came up as well"
    ENGINES.boot_with(APP, None)
    for which in (number, number - 1):
        ENGINES.stop(APP, which, wait=True)


def what_is_forgotten_leaves_nothing() -> None:
    made = release(STUBBORN, drain=600)
    ENGINES.start(made)
    wait_for("it to run", lambda: running(made.number))
    began = time.monotonic()
    ENGINES.forget(APP)
    assert time.monotonic() - began < 15, "no drain for what is destroyed"
    assert not ENGINES.processes(APP) and not ENGINES.defined(APP) and not lives("trap '' TERM; while")


def main() -> None:
    name = sys.argv[1]
    faulthandler.dump_traceback_later(100, exit=True)  # what hangs says where
    os.umask(0o022)
    if not PATHS.dir.exists():
        accounts.create(PATHS)
        with as_shipit() as ledger:
            ledger.create()
    ENGINES.prepare(APP)
    globals()[name]()


if __name__ == "__main__":
    main()
