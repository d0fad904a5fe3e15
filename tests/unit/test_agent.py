"""The agent over a real socket, with its real client; the engine is one that writes down what it was asked."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from agent_lab import BLOG, A, FakeEngine, Lab, answer_to

from receiver import wire
from receiver.engines.all import Engines
from receiver.engines.base import Job
from receiver.errors import Failure, HostFault, NotFound, Rejected
from receiver.names import AppName
from receiver.paths import Layout
from receiver.records import encode
from receiver.root import agent
from receiver.root.client import Agent


def test_a_failed_call_leaves_the_connection_for_the_next(lab: Lab) -> None:
    with pytest.raises(Failure) as caught:
        lab.agent.start(BLOG, 9)
    assert caught.value.exit_code == NotFound.exit_code and "v9" in caught.value.message
    lab.agent.ping()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b'{"v":1,"verb":"shell"}\n', b"GET / HTTP/1.1\n", b"\xff\n"])
def test_what_is_no_request_is_refused_and_nothing_is_done(lab: Lab, line: bytes) -> None:
    assert answer_to(lab, line)["error"]["exit"] == Rejected.exit_code
    assert lab.engine.calls == []


def test_a_request_without_an_end_is_cut_off_at_the_limit(lab: Lab) -> None:
    def send() -> None:
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            while True:
                lab.raw.sendall(b"x" * 65536)

    sender = threading.Thread(target=send)
    sender.start()
    answer = json.loads(lab.raw.makefile("rb").readline())
    sender.join(10)
    assert answer["error"]["exit"] == Rejected.exit_code and not sender.is_alive()


def test_two_requests_at_once_are_refused(lab: Lab) -> None:
    ping = wire.encode_request(wire.Request(wire.Verb.PING))
    assert "error" in answer_to(lab, ping + ping)


def test_a_request_with_descriptors_too_many_or_too_few_is_refused(lab: Lab) -> None:
    lab.release()
    request = wire.Request(wire.Verb.RELEASE_COMMAND, BLOG, 1)
    for fds in ((), (0, 1)):
        with pytest.raises(Failure, match="number of descriptors"):
            lab.agent._call(request, fds)
    assert lab.engine.jobs == []


def test_descriptors_that_were_passed_do_not_pile_up(lab: Lab) -> None:
    lab.release()
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        assert lab.agent.release_command(BLOG, 1, write) == 0
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(write)
    assert os.read(read, 1) == b"", "somebody still holds the pipe"
    os.close(read)


def test_an_unexpected_error_is_told_in_the_journal_and_not_to_the_peer(
    lab: Lab, capfd: pytest.CaptureFixture[str]
) -> None:
    lab.release()

    def bug(job: Job) -> int:
        raise ZeroDivisionError("the value is hunter2")

    lab.engine.job = bug
    with pytest.raises(Failure) as caught:
        lab.agent.release_command(BLOG, 1, 1)
    assert "hunter2" not in "\n".join(caught.value.lines()) and caught.value.exit_code == HostFault.exit_code
    assert "hunter2" in capfd.readouterr().err
    lab.agent.ping()


def test_each_call_is_one_line_in_the_journal_without_any_value(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    lab.release()
    lab.agent.snapshot_config(BLOG, 1, 0, {A: "s3cret"}, [])
    lab.agent.read_config(BLOG, 1)
    err = capfd.readouterr().err
    told = [json.loads(line) for line in err.splitlines()]
    assert [(t["verb"], t["app"], t["release"], t["result"]) for t in told] == [
        ("snapshot_config", "blog", 1, "ok"), ("read_config", "blog", 1, "ok"),
    ]  # fmt: skip
    assert all(t["seconds"] >= 0 for t in told) and "s3cret" not in err


def test_the_worker_is_moved_by_the_kernels_word_on_who_asks(lab: Lab) -> None:
    lab.agent.adopt(BLOG, 3)
    assert lab.engine.calls == [("adopt", 3, os.getpid())]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_nobody_can_have_another_process_moved(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    os.seteuid(65534)
    try:
        with pytest.raises(HostFault):
            lab.agent.adopt(BLOG, 3)
    finally:
        os.seteuid(0)
    assert lab.engine.calls == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_only_shipit_and_root_are_answered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        for parent in (tmp_path, *tmp_path.parents):
            parent.chmod(parent.stat().st_mode | 0o011)
        server.listen()
        os.seteuid(65534)  # what the kernel notes at connect(2)
        try:
            stranger = Agent.connect(path)
        finally:
            os.seteuid(0)
        connection, _ = server.accept()
        stranger._send(wire.encode_request(wire.Request(wire.Verb.PING)), (), ())
        stranger._connection.shutdown(socket.SHUT_WR)
        with connection:
            assert agent.serve(Layout(tmp_path), connection, Engines([FakeEngine()]), iter(())) == 1
        with stranger, pytest.raises(OSError, match=r"closed|reset"):
            stranger._line()
    assert json.loads(capfd.readouterr().err)["uid"] == 65534


def test_an_agent_that_is_not_there_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(HostFault) as caught:
        Agent.connect(tmp_path / "missing.sock")
    assert "shipit doctor" in "\n".join(caught.value.lines())


def test_an_app_that_does_not_exist_is_not_found(lab: Lab) -> None:
    for call in (lab.agent.read_config, lab.agent.start, lab.agent.cancel):
        with pytest.raises(Failure) as caught:
            call(AppName("other"), 1)
        assert caught.value.exit_code == NotFound.exit_code


def test_a_record_of_another_app_is_not_believed(lab: Lab) -> None:
    release = lab.release()
    lab.paths.release(1).record.write_bytes(encode(replace(release, app=AppName("other"))))
    with pytest.raises(Failure, match="belongs to"):
        lab.agent.start(BLOG, 1)
    assert lab.engine.calls == []


def test_closing_the_connection_ends_the_agents_process(lab: Lab) -> None:
    lab.agent.ping()
    lab.agent.close()
    deadline = time.monotonic() + 5
    while lab.thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
