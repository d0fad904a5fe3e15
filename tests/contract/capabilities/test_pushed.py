"""A capability with units, of one file and one row: its units come, change and go with the release."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from host.apps import pushed, say
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

HERE = Path(__file__).parent
SITE = "/usr/lib/shipit/current/lib/python3*/site-packages/receiver/ops"
DATA = "/var/lib/shipit/apps/beating/data"


@pytest.fixture(scope="module")
def server(shared_host: Host) -> Host:
    """It knows the toy, too: one more file and one more row."""
    shared_host.write("/tmp/toy.py", (HERE / "toy.py").read_text())
    row = (
        "s/^ALL: .*= (/&BeatCapability(), /; s/^from receiver.ops.tls/from receiver.ops.toy import BeatCapability\\n&/"
    )
    shared_host.sh(
        f"cp /tmp/toy.py {SITE}/ && sed -i {shlex.quote(row)} {SITE}/all.py && systemctl stop shipit-gateway",
        check=True,
    )
    return shared_host


def test_its_units_come_change_and_go_with_the_release(server: Host, laptop: Client) -> None:
    def units() -> list[str]:
        listed = server.sh("systemctl list-units --plain --no-legend 'shipit-beating-beat*'").out
        return sorted(
            line.split()[0] for line in listed.splitlines() if line.split()[0].endswith((".timer", "@1.service"))
        )

    def lines(name: str) -> list[str]:
        return server.sh(f"cat {DATA}/{name}", check=False).out.splitlines()

    repo = pushed(laptop, "beating", "one", shipit_yml="beat: tock\n")
    assert units() == ["shipit-beating-beat-v1@1.service", "shipit-beating-beats-v1@t1.timer"]
    wait_for("a tick", lambda: "tock v1" in lines("ticks"))
    wait_for("the process that stays", lambda: lines("stays") == ["tock v1"])
    assert server.sh(f"stat -c %U {DATA}/stays").out.strip() == "app-beating"

    assert say(laptop, "config:set", "beating", "A=1").code == 0
    wait_for("the next release's alone", lambda: [unit for unit in units() if "-v1@" in unit] == [])
    assert units() == ["shipit-beating-beat-v2@1.service", "shipit-beating-beats-v2@t1.timer"]
    wait_for("its next one", lambda: lines("stays") == ["tock v1", "tock v2"])

    repo.commit({"shipit.yml": "keep: 5\n"}, "without")
    assert repo.push().ok
    wait_for("no unit of it", lambda: units() == [])

    repo.commit(
        {"shipit.yml": "beat: tick\n", "Procfile": "web: python main.py --at $SOCKET\nbeat: sleep 9\n"}, "twice"
    )
    refused = repo.push(check=False)
    assert not refused.ok and "beat would run, which the app has, too" in refused.remote, str(refused)
