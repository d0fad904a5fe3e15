"""One change of an app at a time, and the newest push wins (threat rows 12, 13)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from gate_server import Job, Laptop, Server, held_push, make_fail, make_live

from receiver.ledger.queue import queued


@pytest.fixture(autouse=True)
def app(server: Server) -> None:
    server.make_app()


def someone(server: Server, tmp_path: Path, name: str, base: Laptop) -> Laptop:
    made = Laptop(server, tmp_path / name / "tree", server.add_key(name))
    made.tree.parent.mkdir()
    base.git("clone", "-q", str(base.tree), str(made.tree))
    made.git("remote", "add", "prod", f"{server.user}@127.0.0.1:blog")
    return made


def test_a_second_push_waits_and_is_told_for_whom(server: Server, laptop: Laptop, tmp_path: Path) -> None:
    bob = someone(server, tmp_path, "bob", laptop)
    bob.commit({"b": "1"})
    first, done = held_push(server, laptop)
    second = bob.start("push", "prod", "main")
    assert second.stdout is not None
    line = second.stdout.readline()
    assert line.startswith("-----> Waiting for v1 by alice, since ") and line.count(":") >= 2
    done.set()
    assert first.wait(30) == 0 and second.wait(30) == 0
    assert server.ledger().current_number() == 2
    assert server.ref("refs/heads/main") == bob.head()


def test_of_the_waiting_pushes_the_newest_wins(server: Server, laptop: Laptop, tmp_path: Path) -> None:
    bob, carol = (someone(server, tmp_path, name, laptop) for name in ("bob", "carol"))
    bob.commit({"b": "1"})
    carol.commit({"c": "1"})
    first, done = held_push(server, laptop)
    second = bob.start("push", "prod", "main")
    assert second.stdout is not None and "Waiting" in second.stdout.readline()
    third = carol.start("push", "prod", "main")
    out, _ = second.communicate(timeout=30)
    assert second.returncode != 0 and "Superseded by a newer push (carol)" in out, out
    assert not done.is_set()
    done.set()
    assert first.wait(30) == 0 and third.wait(30) == 0
    assert server.ref("refs/heads/main") == carol.head()
    assert server.ref(bob.head() + "^{commit}") == ""


def test_a_newer_push_that_gave_up_supersedes_nobody(server: Server, laptop: Laptop, tmp_path: Path) -> None:
    bob, carol = (someone(server, tmp_path, name, laptop) for name in ("bob", "carol"))
    bob.commit({"b": "1"})
    first, done = held_push(server, laptop)
    third = carol.start("push", "prod", "main")
    assert third.stdout is not None and "Waiting" in third.stdout.readline()
    third.kill()
    third.wait()
    time.sleep(1)
    second = bob.start("push", "prod", "main")
    done.set()
    assert first.wait(30) == 0 and second.wait(30) == 0
    assert server.ref("refs/heads/main") == bob.head()


def test_a_push_waits_for_the_worker_of_a_killed_gateway(server: Server, laptop: Laptop) -> None:
    """The worker goes on whoever is killed; the next push starts when it has ended."""
    paths = server.ledger().paths
    import fcntl

    with paths.app_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        push = laptop.start("push", "prod", "main")
        assert push.stdout is not None and "Waiting for" in push.stdout.readline()
        assert server.worker.told == []
    assert push.wait(30) == 0


def test_a_lock_of_a_dead_holder_holds_nobody(server: Server, laptop: Laptop) -> None:
    paths = server.ledger().paths
    paths.queue_lock.write_text('{"by": "ghost", "since": 1}')
    paths.queue.write_bytes(b"ghost".ljust(64) * 7)
    began = time.monotonic()
    assert laptop.push().returncode == 0
    assert time.monotonic() - began < 15


def test_two_apps_do_not_wait_for_each_other(server: Server, laptop: Laptop, tmp_path: Path) -> None:
    server.make_app("shop")
    first, done = held_push(server, laptop)
    server.worker.behaviour = make_live
    shop = Laptop(server, tmp_path / "bob" / "tree", server.add_key("bob")).init("shop")
    assert shop.push().returncode == 0
    done.set()
    assert first.wait(30) == 0


def test_commands_take_the_same_turn(server: Server, laptop: Laptop) -> None:
    said: list[str] = []
    with queued(server.ledger(), "carol", push=False, say=said.append):
        push = laptop.start("push", "prod", "main")
        assert push.stdout is not None and "Waiting for carol" in push.stdout.readline()
        assert server.worker.told == []
    assert push.wait(30) == 0 and said == []


@pytest.mark.slow
def test_branch_ledger_and_live_agree_after_any_interleaving(server: Server, laptop: Laptop, tmp_path: Path) -> None:
    chance = random.Random(7)
    others = [laptop, someone(server, tmp_path, "bob", laptop), someone(server, tmp_path, "carol", laptop)]
    laptop.push()

    def moody(job: Job) -> None:
        time.sleep(chance.random() / 5)
        (make_fail if chance.random() < 0.4 else make_live)(job)

    server.worker.behaviour = moody
    for turn in range(17):
        for i, who in enumerate(others):
            who.commit({f"f{i}": str(turn)})
        running = []
        for who in others:
            running.append(who.start("push", "--force", "-o", "force", "prod", "main"))
            time.sleep(chance.random() / 3)
        for push in running:
            push.communicate(timeout=60)
        current = server.ledger().current()
        assert current is not None and current.commit == server.ref("refs/heads/main")
        assert all(r.status.final for r in server.ledger().releases())
