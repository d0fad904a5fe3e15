"""Root's own files and the apps' names: two name spaces, never in one directory (issue 12, E28)."""

from __future__ import annotations

import pytest
from host.apps import files, pushed, say
from lab.background import wait_for
from lab.client import Client
from lab.host import Box, Host

from receiver.errors import Rejected
from receiver.names import app_name
from receiver.paths import Layout

# Links in all that the app can write below /run/shipit, at names that root's next job would have there.
PLANT = """\
import os, sys
top = "/run/shipit"
for place in [top] + [f"{top}/{name}" for name in os.listdir(top)]:
    for name in ("build-other-v1", "release-other-v1", "other.v1.web.1.starts", "other.v1.web.1.notify", "build-other-v2"):
        try:
            os.symlink("/root/precious", f"{place}/{name}")
        except OSError:
            pass
"""


def test_no_app_name_gives_away_a_file_of_roots(box: Box, client: Client) -> None:
    box.write("/root/precious", "untouched\n")
    box.run("shipit-supervisord", "start")
    for name in ("jobs", "credentials", "processes"):
        procfile = "web: python plant.py; exec python main.py --at $SOCKET\n"
        repo = client.repo(name, {**files(name, procfile), "plant.py": PLANT})
        assert repo.push().code == 0
        assert client.get(name).body == name
    wait_for("the links", lambda: box.sh("find /run/shipit -type l -name build-other-v1").out.count("\n") >= 3)
    # Root's jobs, their credentials and its counts of starts, each at a name that has a link above.
    pushed(client, "other", "other", procfile="web: python main.py --at $SOCKET\nrelease: true\n")
    assert say(client, "run", "other", "true").code == 0
    assert box.read("/root/precious") == "untouched\n"
    theirs = box.sh("find /run/shipit-root -not -user root -not -path '*/credentials/*' -not -name '*.notify'").out
    assert theirs == "", "somebody else has a file among root's"
    assert box.sh("find /run/shipit-root -perm /022 -not -type l").out == "", "somebody else may write among root's"
    assert not box.sh("ls /run/shipit-root", user="app-jobs", check=False).ok
    assert client.get("jobs").body == "jobs"


@pytest.mark.parametrize(
    "entry",
    ["agent.sock", "gateway.sock", "supervisor.sock", "supervisord.pid", "keeper.lock", ".lock"],
)
def test_what_shipit_has_beside_the_apps_has_no_apps_name(entry: str) -> None:
    """/run/shipit and /etc/nginx/shipit hold a name for each app; whatever else is in them cannot be one."""
    with pytest.raises(Rejected):
        app_name(entry)
    layout = Layout()
    assert not layout.roots.is_relative_to(layout.run) and layout.ran.is_relative_to(layout.roots)


def test_an_app_that_is_destroyed_takes_no_other_with_it(laptop: Client, shared_host: Host) -> None:
    """`shipit-release-web-v1@1.service` is the process `web` of an app `release`, and looks like the release command
    of an app `web`."""
    pushed(laptop, "release", "stays")
    pushed(laptop, "web", "goes")
    before = shared_host.sh("pgrep -u app-release").out
    assert say(laptop, "apps:destroy", "web", "--force").code == 0
    assert shared_host.sh("pgrep -u app-release", check=False).out == before
    assert laptop.get("release").body == "stays"
