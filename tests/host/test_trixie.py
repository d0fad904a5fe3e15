"""The core path on the other suite: push, failed push, config, rollback, reboot."""

from __future__ import annotations

from lab.client import Client
from lab.host import Host

from host.apps import asked, environment_of, live, pushed, say, until_body, unwell
from host.test_login import SERVICES, active, check_session


def test_a_login_wakes_gateway_and_agent_on_trixie(trixie_host: Host, client: Client) -> None:
    trixie_host.run("systemctl", "stop", *SERVICES)
    # It begins a session and waits for nobody: what it asks for is answered before anything is started.
    assert client.ssh("nothing").code == 2
    assert all(active(trixie_host, unit) for unit in SERVICES), "the agent too, which this command did not ask"
    check_session(trixie_host)


def test_the_core_path_on_trixie(trixie_host: Host, client: Client) -> None:
    repo = pushed(client, "blog", "one")
    assert client.get("blog").body == "one"
    repo.commit({"mark": "two\n"})
    with client.load("blog", threads=4) as load:
        assert repo.push().code == 0
        load.wait_for_body("two")
        repo.commit({"mark": "three\n", "main.py": "raise SystemExit('broken on purpose')\n"})
        failed = repo.push()
        assert failed.code != 0
        assert "broken on purpose" in failed.remote
        assert say(client, "config:set", "blog", "COLOUR=blue").code == 0
        assert environment_of(client, "blog")["COLOUR"] == "blue"
        assert say(client, "rollback", "blog", "v1").code == 0
    report = load.stop()
    assert report.failed == 0, str(report)
    assert client.get("blog").body == "one"
    assert say(client, "ps:scale", "blog", "web=2").code == 0
    assert say(client, "run", "blog", "sh", "-c", "exit 3").code == 3
    assert len(asked(client, "ps", "blog")) == 2
    number = live(client, "blog")
    trixie_host.reboot()
    until_body(client, "blog", "one", timeout=10)
    assert live(client, "blog") == number
    assert unwell(trixie_host) == []
