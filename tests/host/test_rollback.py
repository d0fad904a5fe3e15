"""Going back: code and config vars together, to what is whole, as a new release; and what is kept for it."""

from __future__ import annotations

import pytest
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

from host.apps import asked, environment_of, live, newest, pushed, say

DAMAGED = "/var/lib/shipit/apps/{}/slugs/v{}"


@pytest.fixture(scope="module")
def past(laptop: Client) -> Repo:
    """v1 one; v2 one, red; v3 two, red; v4 two, blue with EXTRA. v4 is live."""
    repo = pushed(laptop, "past", "one")
    assert say(laptop, "config:set", "past", "COLOUR=red-secret").code == 0
    repo.commit({"mark": "two\n"}, "the second")
    assert repo.push().code == 0
    assert say(laptop, "config:set", "past", "COLOUR=blue-secret", "EXTRA=more-secret").code == 0
    return repo


def test_a_rollback_restores_code_and_config_as_a_new_release_and_says_which_keys_change(
    laptop: Client, past: Repo
) -> None:
    assert live(laptop, "past") == "v4"
    with laptop.load("past", threads=2, pause=0.02) as load:
        result = say(laptop, "rollback", "past", "v2")
    report = load.stop()
    assert result.code == 0, str(result)
    assert report.failed == 0, str(report)
    assert set(report.by_body) <= {"one", "two"}
    assert "Rolling past back from v4 to v2" in result.out
    assert "config  ~ COLOUR" in result.out
    assert "config  - EXTRA" in result.out
    assert "the second" in result.out, "the commits that go are named"
    assert "secret" not in result.text, "names of config vars, never values"
    assert (live(laptop, "past"), laptop.get("past").body) == ("v5", "one")
    found = environment_of(laptop, "past")
    assert found["COLOUR"] == "red-secret"
    assert "EXTRA" not in found
    assert asked(laptop, "config:show", "past", "--reveal") == {"COLOUR": "red-secret"}

    again = say(laptop, "rollback", "past")
    assert again.code == 0, str(again)
    assert laptop.get("past").body == "one", "without a number it goes on backwards, not to and fro"
    assert "COLOUR" not in environment_of(laptop, "past"), "what served before v2 is v1, which had no config vars"

    keeps = say(laptop, "rollback", "past", "v4", "--keep-config")
    assert keeps.code == 0, str(keeps)
    assert "today's is kept" in keeps.out
    assert laptop.get("past").body == "two"
    assert "COLOUR" not in environment_of(laptop, "past")


def test_after_a_rollback_the_rolled_back_push_can_be_made_again(laptop: Client) -> None:
    repo = pushed(laptop, "forth", "one")
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    assert say(laptop, "rollback", "forth").code == 0
    assert laptop.get("forth").body == "one"
    again = repo.push()
    assert again.code == 0, str(again)
    assert laptop.get("forth").body == "two"


def test_a_damaged_release_is_refused_before_anything_is_touched(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "damaged", "one")
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    shared_host.run("rm", DAMAGED.format("damaged", 1) + "/main.py")
    before = laptop.get("damaged", "/who").body
    told = shared_host.run("shipit", "doctor", check=False)
    assert (told.code, "not those that were built: v1\n" in told.out) == (1, True), told
    # As a boot leaves it: what has run since is not looked at again.
    shared_host.run("rm", "-r", "/run/shipit-root/ran/damaged")
    with laptop.load("damaged", threads=2, pause=0.02) as load:
        result = say(laptop, "rollback", "damaged", "v1")
    assert load.stop().failed == 0
    assert result.code != 0, "a release with a file missing must not come back"
    assert "The files of v1, which v3 runs, are not those that were built." in result.text
    assert "v2 is still serving" in result.text
    assert laptop.get("damaged", "/who").body == before
    assert "v3" not in shared_host.run("systemctl", "list-units", "--all", "shipit-damaged-*").out, "nothing is started"
    assert newest(laptop, "damaged")["status"] == "failed"


def test_keep_is_honoured_pins_stay_and_what_was_pruned_is_refused(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "keeps", "1", shipit_yml="keep: 2\n")
    assert say(laptop, "releases:pin", "keeps", "v1").code == 0
    for number in range(2, 9):
        repo.commit({"mark": f"{number}\n"})
        assert repo.push("-o", "force").code == 0
        # What still finishes its requests is not pruned.
        wait_for("the old one to be gone", lambda: len(asked(laptop, "ps", "keeps")) == 1)
    kept = "cd /var/lib/shipit/apps/keeps; ls slugs config"
    wanted = "config: v1.json v7.json v8.json slugs: v1 v7 v8"
    wait_for("it to be pruned", lambda: " ".join(shared_host.sh(kept).out.split()) == wanted)
    units = "ls /etc/systemd/system | grep -c shipit-keeps-web-v || true"
    wait_for("the old units to be gone", lambda: shared_host.sh(units).out.strip() == "1")
    shown = {row["release"]: row["status"] for row in asked(laptop, "releases", "keeps")}
    assert (shown["v3"], shown["v7"], shown["v8"]) == ("pruned", "superseded", "live")
    refused = say(laptop, "rollback", "keeps", "v3")
    assert refused.code == 2
    assert "v3 was pruned" in refused.err
    assert laptop.get("keeps").body == "8"
    assert say(laptop, "releases:output", "keeps", "v3").out.startswith("----->"), "the log of a pruned release stays"
    pinned = say(laptop, "rollback", "keeps", "v1")
    assert pinned.code == 0, str(pinned)
    assert laptop.get("keeps").body == "1"


def test_going_back_without_a_past_is_refused(laptop: Client) -> None:
    pushed(laptop, "young", "one")
    refused = say(laptop, "rollback", "young")
    assert refused.code == 2
    assert "no earlier good release" in refused.err
    assert say(laptop, "rollback", "young", "v1").code == 2
    assert laptop.get("young").body == "one"
