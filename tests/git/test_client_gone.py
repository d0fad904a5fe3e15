"""The client, the gateway or git is killed: the deploy ends as if they were there, and nothing stays locked (row 10, 11)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from gate_server import Job, Laptop, Server, held_push, make_live, wait_for

from receiver.model import Status
from receiver.story.worker import NAME as WORKER_NAME


@pytest.fixture(autouse=True)
def app(server: Server) -> None:
    server.make_app()


def kill(push: subprocess.Popen[str]) -> None:
    os.killpg(push.pid, signal.SIGKILL)
    push.wait()


def server_side(server: Server, name: str) -> list[int]:
    """Processes whose command line has both `name` and this server's directory in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                comm = (entry / "comm").read_text().strip()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            mine = name in line and str(server.root) in line and "sshd_config" not in line
            # A worker has the command line of the gateway that it was forked from, and a name of its own.
            if mine and comm != WORKER_NAME:
                found.append(int(entry.name))
    return found


def kill_there(server: Server, name: str) -> None:
    for pid in server_side(server, name):
        # What only passes through (a shell that execs) may be gone by now.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_client_killed_during_a_talkative_deploy_blocks_nothing(server: Server, laptop: Laptop) -> None:
    """threats E6: receive-pack's pipe is never emptied again; 1 MiB of output must not fill it for ever."""
    gone, ended = threading.Event(), threading.Event()

    def talkative(job: Job) -> None:
        job.say("-----> Building")
        gone.wait(30)
        for _ in range(256):
            job.say("x" * 4095)
        job.live()
        ended.set()

    server.worker.behaviour = talkative
    push = laptop.start("push", "prod", "main")
    wait_for(lambda: server.worker.told)
    kill(push)
    gone.set()
    assert ended.wait(20)
    wait_for(lambda: not server_side(server, "scripts/gateway"), 15)
    release = server.ledger().current()
    assert release is not None and release.status is Status.LIVE
    assert server.ref("refs/heads/main") == release.commit
    server.worker.behaviour = make_live
    laptop.commit({"a": "1"})
    began = time.monotonic()
    done = laptop.push()
    assert done.returncode == 0 and "Waiting" not in done.stderr and time.monotonic() - began < 15


def test_a_client_killed_during_a_deploy_that_fails_leaves_the_branch_right(server: Server, laptop: Laptop) -> None:
    push, gone = held_push(server, laptop, Job.fail)
    kill(push)
    gone.set()
    wait_for(lambda: not server_side(server, "scripts/gateway"))
    assert server.ref("refs/heads/main") == ""
    server.worker.behaviour = make_live
    assert laptop.push().returncode == 0


def test_a_client_killed_while_it_uploads_changes_nothing(server: Server, laptop: Laptop) -> None:
    (laptop.tree / "big").write_bytes(os.urandom(30 * 2**20))
    laptop.commit({})
    push = laptop.start("push", "prod", "main")
    wait_for(lambda: list(server.ledger().paths.repo.glob("objects/tmp_objdir-*")))
    kill(push)
    wait_for(lambda: not server_side(server, "receive-pack"))
    assert server.ref("refs/heads/main") == "" and server.worker.told == []
    wait_for(lambda: server.agent.closed_unused == 1)
    left = server.ledger().paths.repo / "objects/tmp_objdir-incoming-x"
    left.mkdir()
    assert laptop.push().returncode == 0
    assert not list(left.parent.glob("tmp_objdir-*"))


def test_a_client_killed_while_it_waits_leaves_the_queue(server: Server, laptop: Laptop) -> None:
    from receiver.ledger.queue import queued

    with queued(server.ledger(), "carol", push=False, say=lambda line: None):
        push = laptop.start("push", "prod", "main")
        assert push.stdout is not None and "Waiting" in push.stdout.readline()
        kill(push)
        wait_for(lambda: not server_side(server, "scripts/gateway"))
    assert server.worker.told == [] and server.ledger().numbers() == []


def test_a_killed_gateway_keeps_its_turn_until_the_deploy_is_decided(server: Server, laptop: Laptop) -> None:
    push, go = held_push(server, laptop)
    kill_there(server, "scripts/gateway")
    server.worker.behaviour = make_live
    laptop.git("commit", "-q", "--allow-empty", "-m", "next")
    second = laptop.start("push", "prod", "main")
    assert second.stdout is not None and "Waiting for v1 by alice" in second.stdout.readline()
    go.set()
    push.communicate(timeout=30)
    assert second.wait(30) == 0
    current = server.ledger().current()
    assert current is not None and current.number == 2 and current.commit == server.ref("refs/heads/main")


def test_a_killed_hook_does_not_end_the_watch(server: Server, laptop: Laptop) -> None:
    push, go = held_push(server, laptop)
    kill_there(server, "hooks/post-receive")
    time.sleep(0.5)
    assert push.poll() is None
    go.set()
    assert push.wait(30) == 0
    assert server.ref("refs/heads/main") == laptop.head()


def test_a_killed_receive_pack_fails_the_push_and_the_next_one_finds_order(server: Server, laptop: Laptop) -> None:
    push, go = held_push(server, laptop, Job.fail)
    kill_there(server, "git receive-pack")
    go.set()
    out, _ = push.communicate(timeout=30)
    assert push.returncode != 0, out
    server.worker.behaviour = make_live
    done = laptop.push()
    assert done.returncode == 0, done.stderr
    current = server.ledger().current()
    assert current is not None and current.commit == server.ref("refs/heads/main")


def test_a_killed_gateway_keeps_its_turn_while_its_git_still_receives(server: Server, laptop: Laptop) -> None:
    """Else git could move the branch after the next push has put it right."""
    argv = [*laptop.ssh_argv(), "git-receive-pack 'blog'"]
    first = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=laptop.env)
    assert first.stdout is not None and first.stdout.read(4)
    (git,) = server_side(server, "git receive-pack")
    os.kill(git, signal.SIGSTOP)
    kill_there(server, "scripts/gateway")
    second = laptop.start("push", "prod", "main")
    assert second.stdout is not None and "Waiting for alice" in second.stdout.readline()
    assert server.worker.told == []
    os.kill(git, signal.SIGKILL)
    assert second.wait(60) == 0
    first.kill()
    first.wait()
