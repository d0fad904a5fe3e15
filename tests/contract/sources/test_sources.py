"""What every source promises, asked of each of them on one server, from outside. The table of them is in ways.py.

Each test stands alone: it ships what it counts on. The apps of a way are its own, and stay for the next test.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from host.apps import asked, branch_at_server, live, newest, say, until_body, unwell
from lab import snapshot
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from contract.sources.images import server_with_podman
from contract.sources.ways import WAYS, ByGit, Way, app
from receiver.sources.all import ALL

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.xdist_group("sources")]
HERE = Path(__file__).parent
SITE = "/usr/lib/shipit/current/lib/python3*/site-packages/receiver/sources"
# Sources that keep these promises on a machine of their own, by kind: the suite beside this one.
ELSEWHERE = {"disk": "test_disks.py"}
KEEP = 2
ONE_OF_A_KIND = tuple({way.kind: way for way in reversed(WAYS)}.values())


@pytest.fixture(scope="module")
def server() -> Iterator[Host]:
    """It knows the toy, too (one more file and one more row), runs containers, and keeps few releases."""
    with server_with_podman("sources") as host:
        host.write("/tmp/toy.py", (HERE / "toy.py").read_text())
        row = 's/^ALL: .*= {/&"list": "receiver.sources.toy:ListSource", /'
        host.sh(
            f"cp /tmp/toy.py {SITE}/ && sed -i {shlex.quote(row)} {SITE}/all.py && echo 'keep: {KEEP}' >> /etc/shipit/shipit.yml"
            " && systemctl stop shipit-gateway",
            check=True,
        )
        yield host


@pytest.fixture(scope="module")
def laptop(server: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server, tmp_path_factory.mktemp("laptop"), key=snapshot.admin_key())


def made(laptop: Client, kind: type[Way], name: str) -> Way:
    say(laptop, "apps:create", name, check=True)
    return kind(laptop, name)


@pytest.fixture(scope="module")
def apps() -> dict[type[Way], Way]:
    return {}


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(laptop: Client, apps: dict[type[Way], Way], request: pytest.FixtureRequest) -> Way:
    """An app of its own, whose first release came in by this way; the next test finds it as this one has left it."""
    kind: type[Way] = request.param
    if kind not in apps:
        its = made(laptop, kind, kind.__name__.lower())
        goes_live(its, "first")
        apps[kind] = its
    return apps[kind]


def goes_live(way: Way, mark: str) -> str:
    """Ship it; it serves now. The release's name."""
    shipped = way.ship(app(mark))
    assert shipped.code == 0, str(shipped)
    assert way.laptop.get(way.name).body.strip() == mark, str(shipped)
    return live(way.laptop, way.name)


def test_every_source_is_in_the_table() -> None:
    """A source without an entry has kept no promise."""
    known = {way.kind for way in WAYS} | {kind for kind, suite in ELSEWHERE.items() if (HERE / suite).exists()}
    assert set(ALL) <= known, "add it to ways.py"


def test_what_is_shipped_is_live_and_says_where_it_came_from(way: Way, laptop: Client) -> None:
    release = goes_live(way, "shipped")
    told = newest(laptop, way.name)
    assert (told["release"], told["status"], told["source"]) == (release, "live", way.kind)
    after = goes_live(way, "shipped again")
    assert after != release
    assert say(laptop, "rollback", way.name).code == 0
    assert laptop.get(way.name).body.strip() == "shipped"


def test_what_does_not_start_or_is_cut_off_leaves_the_old_one_and_the_next_goes_live(
    way: Way, server: Host, laptop: Client
) -> None:
    before = goes_live(way, "good")
    broken = way.ship(app("broken"))
    assert broken.code != 0 and "Traceback" not in broken.text, str(broken)
    for what, cut in way.cut_short(app("cut")):
        assert cut.code != 0 and "Traceback" not in cut.text, f"{what}: {cut}"
        assert live(laptop, way.name) == before and laptop.get(way.name).body.strip() == "good", f"{what}: {cut}"
    goes_live(way, "after it")
    left = server.sh(f"ls /var/lib/shipit/apps/{way.name}/repo.git", check=True).out
    assert "received-" not in left and not [line for line in unwell(server) if line.startswith(way.name)]


def test_it_is_built_again_and_put_live_again_from_what_is_kept(way: Way, laptop: Client) -> None:
    older, newer = goes_live(way, "older"), goes_live(way, "newer")
    again = say(laptop, "deploy", way.name)
    assert again.code == 0 and laptop.get(way.name).body.strip() == "newer", str(again)
    assert live(laptop, way.name) not in (older, newer)
    first = say(laptop, "deploy", way.name, older)
    assert first.code == 0 and laptop.get(way.name).body.strip() == "older", str(first)
    assert newest(laptop, way.name)["source"] == way.kind


@pytest.mark.parametrize("way", ONE_OF_A_KIND, ids=lambda way: way.__name__, indirect=True)
def test_what_is_pruned_is_gone_and_with_it_what_it_came_from(way: Way, server: Host, laptop: Client) -> None:
    place = f"/var/lib/shipit/apps/{way.name}"

    def is_pruned() -> bool:
        # The first one's environment may be what later ones run from.
        return server.exists(f"{place}/releases/v2") and not server.exists(f"{place}/config/v2.json")

    # Other tests may have shipped enough by now.
    for number in range(KEEP + 2):
        if not is_pruned():
            goes_live(way, f"pushes it out {number}")
    wait_for("it to be pruned", is_pruned)
    gone = say(laptop, "rollback", way.name, "v2")
    assert gone.code == 2, str(gone)
    wait_for("its files to be gone", lambda: not server.exists(f"{place}/slugs/v2"))
    asked_of_git = f"runuser -u shipit -- git -C {place}/repo.git for-each-ref --format='%(refname)' refs/shipit"
    wait_for("its commit, too", lambda: "refs/shipit/v2" not in server.sh(asked_of_git, check=True).out.split())


def test_after_a_release_of_another_source_a_push_goes_on_where_the_last_one_was(
    way: Way, server: Host, laptop: Client
) -> None:
    if isinstance(way, ByGit):
        pytest.skip("it is the push")
    other = made(laptop, type(way), f"both-{way.name}")
    git = ByGit(laptop, other.name)
    pushed_at = goes_live(git, "pushed")
    assert git.repo
    pushed = branch_at_server(git.repo)
    sent_at = goes_live(other, "sent")
    assert branch_at_server(git.repo) == pushed
    # A push that fails moves nothing either.
    assert git.ship(app("broken")).code != 0
    assert laptop.get(other.name).body.strip() == "sent" and branch_at_server(git.repo) == pushed
    for release, body in ((pushed_at, "pushed"), (sent_at, "sent")):
        back = say(laptop, "rollback", other.name, release)
        assert back.code == 0 and laptop.get(other.name).body.strip() == body, str(back)
        assert branch_at_server(git.repo) == pushed
    goes_live(git, "pushed again")
    assert branch_at_server(git.repo) == git.repo.head
    assert {row["source"] for row in asked(laptop, "releases", other.name)} >= {"git", way.kind}
    assert say(laptop, "deploy", other.name, pushed[:10]).code == 0
    assert laptop.get(other.name).body.strip() == "pushed"
    told = say(laptop, "deploy", other.name, "no-such-thing")
    assert told.code == 2 and "no release, branch, tag or commit" in told.err


def running(laptop: Client, name: str) -> set[str]:
    return {row["process"] for row in asked(laptop, "ps", name) if row["state"] == "running"}


def test_two_web_processes_and_a_worker_go_on_with_the_next_release_and_after_a_reboot(
    server: Host, laptop: Client
) -> None:
    """Of all ways, with one reboot."""
    all_of_them = {"web.1", "web.2", "worker.1"}
    ways = [made(laptop, kind, f"boot-{kind.__name__.lower()}") for kind in WAYS]
    for way in ways:
        shipped = way.ship(way.with_worker("before"))
        assert shipped.code == 0, f"{way.name}: {shipped}"
        scaled = say(laptop, "ps:scale", way.name, "web=2", "worker=1")
        assert scaled.code == 0, f"{way.name}: {scaled}"
        wait_for(f"{way.name} to run", lambda way=way: running(laptop, way.name) == all_of_them)
        shipped = way.ship(way.with_worker("after"))
        assert shipped.code == 0, f"{way.name}: {shipped}"
    server.reboot()
    for way in ways:
        until_body(laptop, way.name, "after", timeout=60)
        wait_for(f"{way.name} to be whole", lambda way=way: running(laptop, way.name) == all_of_them)
    assert not [line for line in unwell(server) if line.startswith("boot-")]
