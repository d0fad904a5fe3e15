"""What a reboot, clean or by losing power, leaves: the live releases, without shipit's help; and no half of anything."""

from __future__ import annotations

import time

from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import asked, build, files, live, newest, pushed, say, until_body, unwell

OFF = "[Unit]\nConditionPathExists=/nowhere\n"
SHIPIT = (
    "shipit-reconcile.service",
    "shipit-agent.socket",
    "shipit-agent.service",
)


def test_after_a_reboot_every_live_app_answers_without_shipit_and_a_stopped_one_stays_stopped(
    host: Host, client: Client
) -> None:
    front = pushed(client, "ported", "ported", procfile="web: python main.py $PORT\n")
    several = pushed(client, "several", "one", shipit_yml="processes: {web: {count: 2}}\n")
    several.commit({"mark": "two\n"})
    assert several.push().code == 0
    assert say(client, "config:set", "several", "COLOUR=blue").code == 0
    pushed(client, "paused", "paused")
    assert say(client, "ps:stop", "paused").code == 0
    for unit in SHIPIT:
        host.write(f"/etc/systemd/system/{unit}.d/off.conf", OFF)

    host.reboot()
    assert host.run("systemctl", "is-active", "shipit-agent.socket", check=False).out.strip() != "active"
    until_body(client, "ported", "ported")
    until_body(client, "several", "two")
    seen = {client.get("several", "/who").body.split()[0] for _ in range(20)}
    assert seen == {"web.1", "web.2"}
    assert '"COLOUR": "blue"' in client.get("several", "/env").body
    assert client.get("paused").status == 503
    running = host.sh("systemctl list-units --plain --no-legend 'shipit-*@*.service'").out
    assert "paused" not in running
    assert "shipit-several-web-v1@" not in running, "an old release came back"

    for unit in SHIPIT:
        host.run("rm", "-r", f"/etc/systemd/system/{unit}.d")
    host.reboot()
    until_body(client, "several", "two")
    assert unwell(host) == []
    assert host.failed_units() == []
    front.commit({"mark": "next\n"})
    assert front.push().code == 0
    assert say(client, "ps:start", "paused").code == 0
    assert client.get("paused").body == "paused"


def test_losing_power_in_a_deploy_leaves_the_old_or_the_new_release_whole(host: Host, client: Client) -> None:
    repo = pushed(client, "blog", "0", procfile="web: python main.py $SOCKET\nrelease: echo released; sleep 0.4\n")
    good = "0"
    for number, moment in enumerate(("in the build", "in the release command", 0.15, 0.35, 0.6), 1):
        manifest = build("echo begun; sleep 100") if moment == "in the build" else "keep: 5\n"
        repo.commit({"mark": f"{number}\n", "shipit.yml": manifest})
        push = repo.start_push()
        if moment == "in the build":
            wait_for("the build", lambda push=push: "begun" in push.so_far())  # type: ignore[misc]
        else:
            wait_for("the release command", lambda push=push: "released" in push.so_far())  # type: ignore[misc]
            if isinstance(moment, float):
                time.sleep(0.4 + moment)
        host.power_cut()
        push.kill()
        push.wait(10)

        wait_for("an answer", lambda: client.get("blog").status == 200)
        served = client.get("blog").body
        assert served in (good, str(number)), f"cut {moment}: {served!r} was never pushed whole"
        assert live(client, "blog")
        retry = repo.push()
        if moment == "in the build":
            assert served == good
            assert retry.code != 0 or good == served
            repo.commit({"shipit.yml": "keep: 5\n"})
            retry = repo.push()
        assert retry.code == 0, f"cut {moment}: {retry}"
        assert client.get("blog").body == str(number)
        host.run("shipit", "doctor", "--fix")
        assert unwell(host) == [], f"cut {moment}"
        good = str(number)
    wait_for(
        "the live release to be alone",
        lambda: {row["release"] for row in asked(client, "ps", "blog")} == {live(client, "blog")},
    )


def test_what_was_half_made_when_the_power_went_is_put_away_at_boot(host: Host, client: Client) -> None:
    repo = pushed(client, "blog", "one")
    repo.commit({"mark": "two\n", "shipit.yml": build("echo begun; sleep 100")})
    push = repo.start_push()
    wait_for("the build", lambda: "begun" in push.so_far())
    host.power_cut()
    push.kill()
    push.wait(10)
    until_body(client, "blog", "one")
    wait_for("the half made release to be recorded as failed", lambda: newest(client, "blog")["status"] == "failed")
    assert unwell(host) == [], "nothing needs to be done by hand"


def test_an_app_that_was_never_pushed_whole_does_not_hinder_the_boot(host: Host, client: Client) -> None:
    repo = client.repo("never", files("one", "web: false # $SOCKET\n"))
    assert repo.push().code != 0
    pushed(client, "blog", "one")
    host.reboot()
    until_body(client, "blog", "one")
    assert host.failed_units() == []
    assert client.get("never").status in (404, 503)


def test_an_app_comes_up_after_the_database_of_its_machine(host: Host, client: Client) -> None:
    pushed(client, "blog", "one")
    host.write(
        "/etc/systemd/system/postgresql.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 3\n[Install]\nWantedBy=multi-user.target\n",
    )
    host.run("systemctl", "enable", "postgresql.service")
    host.reboot()
    until_body(client, "blog", "one")

    def when(unit: str, moment: str) -> int:
        return int(host.run("systemctl", "show", "--value", f"--property={moment}TimestampMonotonic", unit).out)

    assert when("shipit-blog-web-v1@1.service", "InactiveExit") >= when("postgresql.service", "ActiveEnter")
