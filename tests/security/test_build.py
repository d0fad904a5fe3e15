"""A hostile build against its limits, on a machine where the kernel enforces them (threat rows 25, 26, 28, 30)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from host.apps import asked, build, files, live, pushed, say, until_body, unwell
from lab import snapshot
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

# They share a machine of their own.
pytestmark = pytest.mark.xdist_group("bombs")

APPS = "/var/lib/shipit/apps"
SETTINGS = "/etc/shipit/shipit.yml"
LIMITS = {"build_memory": 160, "build_tasks": 80}

BOMBS = {
    "memory": ("b = []\nwhile True:\n    b.append(b'x' * 10_000_000)\n", "160 MiB of memory (build_memory"),
    "forks": (
        "import subprocess\nfor _ in range(3000):\n    subprocess.Popen(['sleep', '4321'])\n",
        "more processes and threads than a build may have (build_tasks",
    ),
    "file": ("with open('big', 'wb') as file:\n    file.truncate(9 << 30)\n", "File too large"),
}


@pytest.fixture(scope="module")
def limited() -> Iterator[Host]:
    with Host.boot(snapshot.installed_tree("bookworm"), "limited", limits=True) as machine:
        settings = "".join(f"{key}: {value}\n" for key, value in LIMITS.items())
        machine.write(SETTINGS, machine.read(SETTINGS) + settings)
        yield machine


@pytest.fixture(scope="module")
def laptop(limited: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(limited, tmp_path_factory.mktemp("laptop"), key=snapshot.admin_key())


@pytest.fixture(scope="module")
def calm(laptop: Client) -> Repo:
    """The neighbour that must not notice."""
    return pushed(laptop, "calm", "calm")


@pytest.fixture(scope="module")
def bomb(laptop: Client, calm: Repo) -> Repo:
    return pushed(laptop, "bomb", "whole")


@pytest.mark.host
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_in_a_build_ends_at_its_limit_which_is_named_and_nobody_else_notices(
    kind: str, laptop: Client, bomb: Repo, limited: Host
) -> None:
    script, named = BOMBS[kind]
    bomb.commit({"bomb.py": script, "shipit.yml": build("python3 bomb.py")})
    with laptop.load("calm") as load:
        result = bomb.push()
    assert result.code != 0, str(result)
    assert named in re.sub(r"\s+", " ", result.err), str(result)
    assert load.stop().failed == 0, load.stop()
    assert laptop.get("bomb").body == "whole"
    assert live(laptop, "bomb") == "v1"
    assert not limited.run("pgrep", "-u", "build-bomb", check=False).ok, "a process outlived its build"
    left = limited.sh(f"ls {APPS}/bomb/slugs").out.split()
    assert left == ["v1"], "a failed build left its slug"


@pytest.mark.host
def test_an_endless_build_is_stopped_and_an_endless_output_is_cut_each_with_its_limit(
    laptop: Client, bomb: Repo, limited: Host
) -> None:
    # 9 MiB before the 8 MiB that are kept end it: what comes after is neither stored nor sent.
    script = (
        "import sys, time\nfor n in range(9 * 2**20 // 64):\n    print('%063d' % n)\nprint('unheard', flush=True)\n"
        "import subprocess\nsubprocess.Popen(['setsid', 'sleep', '4321'])\ntime.sleep(4321)\n"
    )
    bomb.commit({"bomb.py": script, "shipit.yml": build("python3 bomb.py")})
    limited.sh(f"echo 'build_timeout: 8' >>{SETTINGS}")
    try:
        result = bomb.push()
    finally:
        limited.sh(f"sed -i /build_timeout/d {SETTINGS}")
    assert result.code != 0
    assert "The output is longer than 8 MiB; the rest is not kept." in result.err, result.err[-500:]
    assert "unheard" not in result.err
    assert "took longer than 8 s and was stopped" in result.err, result.err[-500:]
    size = int(limited.sh(f"stat -c %s $(ls -td {APPS}/bomb/releases/v*/log | head -1)").out)
    assert size < 10 * 2**20
    assert not limited.run("pgrep", "-u", "build-bomb", check=False).ok


@pytest.mark.host
def test_an_index_that_never_answers_ends_at_the_limit_and_the_old_release_serves(
    laptop: Client, bomb: Repo, limited: Host
) -> None:
    listening = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 9753)); print(flush=True); time.sleep(4321)"
    )
    index = limited.start(f'exec python3 -c "{listening}"')
    wait_for("the index", lambda: limited.sh("ss -tlnH sport = :9753").out)
    before = laptop.get("bomb").body
    assert say(laptop, "config:set", "bomb", "UV_DEFAULT_INDEX=http://127.0.0.1:9753/simple").code == 0
    bomb.commit({"requirements.txt": "flask\n", "shipit.yml": None, "bomb.py": None})
    limited.sh(f"echo 'build_timeout: 5' >>{SETTINGS}")
    try:
        result = bomb.push()
    finally:
        limited.sh(f"sed -i /build_timeout/d {SETTINGS}")
        index.kill()
    assert result.code != 0
    assert "took longer than 5 s and was stopped" in result.err, str(result)
    assert laptop.get("bomb").body == before
    bomb.commit({"requirements.txt": None})


@pytest.mark.host
def test_after_all_bombs_the_app_is_pushed_as_if_nothing_had_been(laptop: Client, bomb: Repo, limited: Host) -> None:
    bomb.commit({**files("mended"), "shipit.yml": None, "bomb.py": None, "requirements.txt": None})
    result = bomb.push()
    assert result.code == 0, str(result)
    until_body(laptop, "bomb", "mended")
    assert unwell(limited) == []
    assert limited.failed_units() == []


@pytest.mark.host
def test_what_an_app_takes_altogether_is_counted_beside_its_limit(laptop: Client, calm: Repo, limited: Host) -> None:
    def kernel(what: str) -> int:
        return int(limited.run("systemctl", "show", "-P", what, "shipit-calm.slice").out)

    say(laptop, "ps:scale", "calm", "web=2", check=True)
    wait_for("the first release to end", lambda: len(asked(laptop, "ps", "calm")) == 2)
    web, together = asked(laptop, "resource:report", "calm")
    tasks, most = map(int, together["tasks"].split(" of "))
    assert (tasks, most) == (kernel("TasksCurrent"), kernel("TasksMax")) and tasks >= 2, together
    memory, _, limit = together["memory"].partition(" of ")
    assert int(memory.removesuffix("M")) > 0 and limit == f"{kernel('MemoryMax') / 2**20:.0f}M", together
    assert int(web["tasks"].split(" of ")[0]) >= 1 and not web["memory"].startswith("0M"), web


@pytest.mark.host
def test_an_app_cannot_use_more_than_its_manifest_says(laptop: Client, bomb: Repo, limited: Host) -> None:
    """A process that eats is killed and comes back; its neighbours, of the same app and of others, go on."""
    eat = "worker: python3 -c \"import time; time.sleep(1); b = [b'x' * 10_000_000 for _ in range(100)]\"\n"
    before = laptop.get("bomb").body
    bomb.commit(
        {
            "Procfile": "web: python main.py --at $SOCKET\n" + eat,
            "shipit.yml": "processes:\n  worker:\n    count: 1\n    memory: 64M\n    healthcheck:\n      settle: 3\n",
        }
    )
    with laptop.load("bomb") as load:
        result = bomb.push()
    assert result.code != 0, "a process that its limit kills is not healthy"
    assert "worker.1" in result.err, str(result)
    assert load.stop().failed == 0, load.stop()
    assert laptop.get("bomb").body == before
