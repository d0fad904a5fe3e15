"""A ledger damaged by a failing disk or a careless hand: told, never guessed, mended by `doctor --fix` or the next boot."""

from __future__ import annotations

import pytest
from host.apps import asked, environment_of, pushed, say, unwell
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

RELEASES = "/var/lib/shipit/apps/torn/releases"
DAMAGE = {
    "the live release's record": ("truncate -s 200 v3/release.json", "The record of torn v3 is damaged"),
    "an old release's record": ("truncate -s 0 v1/release.json", "The record of torn v1 is damaged"),
    "app.json": ("truncate -s 40 app.json", "app.json of torn is damaged"),
    # One bit: the file is JSON as before, and names another release's files.
    "the slug in the live release's record": (
        """sed -i 's/"slug": 3,/"slug": 1,/' v3/release.json""",
        "The record of torn v3 is damaged",
    ),
}
LOST = {
    "gone": ("rm current", "which says what is live, is gone"),
    "dangling": ("ln -sfn v77 current", "points at 'v77'"),
}


@pytest.fixture(scope="module")
def torn(laptop: Client) -> Repo:
    """v1 one; v2 one with a config var; v3 two. v3 is live."""
    repo = pushed(laptop, "torn", "one")
    assert say(laptop, "config:set", "torn", "COLOUR=red").code == 0
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    return repo


def refused(laptop: Client, repo: Repo, told: str) -> None:
    """A push, and what it is answered: what is damaged, that nothing was done, what to type."""
    repo.commit({}, "refused")
    result = repo.push()
    assert result.code != 0
    assert told in result.text and "shipit doctor --fix" in result.text, str(result)
    assert "Traceback" not in result.text and "bug in shipit" not in result.text, str(result)
    repo.git("reset", "-q", "--hard", "HEAD~1")


@pytest.mark.parametrize("what", DAMAGE)
def test_a_torn_file_is_told_the_site_serves_on_and_doctor_mends_it(
    what: str, shared_host: Host, laptop: Client, torn: Repo
) -> None:
    harm, told = DAMAGE[what]
    before = shared_host.sh(f"cd {RELEASES}; cat v*/release.json app.json; readlink current").out
    with laptop.load("torn", threads=2, pause=0.02) as load:
        shared_host.sh(f"cd {RELEASES}; {harm}")
        assert any(told in line for line in unwell(shared_host)), unwell(shared_host)
        if what != "an old release's record":
            refused(laptop, torn, told)
        fixed = shared_host.run("shipit", "doctor", "--fix", check=False)
        assert fixed.code == 0 and "restored from its copy" in fixed.out, str(fixed)
    report = load.stop()
    assert report.failed == 0 and set(report.by_body) == {"two"}, str(report)
    assert shared_host.sh(f"cd {RELEASES}; cat v*/release.json app.json; readlink current").out == before
    assert unwell(shared_host) == []


@pytest.mark.parametrize("how", LOST)
def test_a_lost_current_is_told_nothing_is_made_of_it_and_doctor_finds_it_again(
    how: str, shared_host: Host, laptop: Client, torn: Repo
) -> None:
    """The link is the switch, too: until it is mended the proxy has no way to the app."""
    harm, told = LOST[how]
    shared_host.sh(f"cd {RELEASES}; {harm}")
    assert any(told in line for line in unwell(shared_host)), unwell(shared_host)
    refused(laptop, torn, told)
    assert say(laptop, "config:set", "torn", "COLOUR=blue").code != 0
    fixed = shared_host.run("shipit", "doctor", "--fix", check=False)
    assert fixed.code == 0 and "points at v3 again" in fixed.out, str(fixed)
    assert laptop.get("torn").body == "two"
    assert environment_of(laptop, "torn")["COLOUR"] == "red", "no config var was lost"
    assert [row["release"] for row in asked(laptop, "releases", "torn")] == ["v3", "v2", "v1"]
    assert unwell(shared_host) == []


def test_a_boot_mends_it_too_and_then_the_next_push_works(shared_host: Host, laptop: Client, torn: Repo) -> None:
    shared_host.sh(f"cd {RELEASES}; rm current; truncate -s 9 v3/release.json app.json")
    shared_host.power_cut()
    wait_for("the site to answer", lambda: laptop.get("torn").body == "two", timeout=30)
    # What ended again and again before it was mended is well when it has run for a while (engines.base.STEADY).
    assert [line for line in unwell(shared_host) if "again and again" not in line] == []
    torn.commit({"mark": "three\n"})
    assert torn.push().code == 0
    assert laptop.get("torn").body == "three"
    assert environment_of(laptop, "torn")["COLOUR"] == "red"
    wait_for("all to be well, without exception", lambda: unwell(shared_host) == [], timeout=30)
