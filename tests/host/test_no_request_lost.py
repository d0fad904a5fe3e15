"""Not one request is lost, however often something is pushed. SHIPIT_TEST_PUSHES sets how often (default 30)."""

from __future__ import annotations

import os

from lab.client import Client
from lab.host import Host, wait_for

from host.apps import asked, pushed, say

PUSHES = int(os.environ.get("SHIPIT_TEST_PUSHES", "30"))


def test_no_request_is_lost_in_many_pushes_under_constant_load(shared_host: Host, client: Client) -> None:
    repo = pushed(client, "busy", "0")
    with client.load("busy", threads=8, pause=0.01) as load:
        for number in range(1, PUSHES + 1):
            repo.commit({"mark": f"{number}\n"})
            result = repo.push()
            assert result.code == 0, str(result)
            load.wait_for_body(str(number), timeout=5)
    report = load.stop()
    assert report.failed == 0, str(report)
    assert set(report.by_status) == {200}
    assert set(report.by_body) == {str(number) for number in range(PUSHES + 1)}
    for number in range(PUSHES):
        assert report.last[str(number)] < report.first[str(number + 1)] + 0.5, "old and new answers alternate"
    wait_for("the old processes to go", lambda: len(asked(client, "ps", "busy")) == 1)


def test_slow_requests_are_finished_by_the_release_that_took_them(shared_host: Host, client: Client) -> None:
    repo = pushed(client, "slow", "0")
    with client.load("slow", "/slow/1.5", threads=8, keep_alive=False) as load:
        wait_for("requests under way", lambda: load.total >= 8)
        for number in range(1, 4):
            repo.commit({"mark": f"{number}\n"})
            assert repo.push().code == 0
    report = load.stop()
    assert report.failed == 0, str(report)


QUIET = [("config:set", "steady", "A=1"), ("ps:restart", "steady"), ("rollback", "steady", "v1"), ("deploy", "steady")]
RELOADED = [("ps:scale", "steady", "web=3"), ("domains:add", "steady", "more.example"), ("ps:scale", "steady", "web=1")]


def test_config_changes_restarts_and_rollbacks_lose_none_either(shared_host: Host, client: Client) -> None:
    pushed(client, "steady", "one")
    with client.load("steady", threads=8, pause=0.01) as load:
        for words in QUIET:
            result = say(client, *words)
            assert result.code == 0, str(result)
    report = load.stop()
    assert report.failed == 0, str(report)


def test_what_reloads_the_proxy_loses_no_request_on_a_new_connection(shared_host: Host, client: Client) -> None:
    """A reload closes kept connections that are idle; who sends on one just then has to ask again (RFC 9112, 9.3.1)."""
    pushed(client, "firm", "one")
    host = f"firm.{client.domain()}"
    assert say(client, "domains:add", "firm", host).code == 0
    with client.load("firm", threads=8, pause=0.01, keep_alive=False) as load:
        for words in RELOADED:
            result = say(client, words[0], "firm", *words[2:])
            assert result.code == 0, str(result)
        pushed(client, "newcomer", "another app")
    report = load.stop()
    assert report.failed == 0, str(report)
