"""Apps that were not written for a read-only release, or for this receiver: they go live, or the push says what to write."""

from __future__ import annotations

import json

from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import asked, files, say

BESIDE = """\
import http.server, os, sqlite3
os.makedirs("uploads/big", exist_ok=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        base = sqlite3.connect("app.sqlite3")
        base.execute("create table if not exists seen (it)")
        base.execute("insert into seen values (1)")
        base.commit()
        with open("uploads/log", "a") as log: log.write("x")
        (count,) = base.execute("select count(*) from seen").fetchone()
        text = f"{count} {os.path.getsize('uploads/log')} {os.environ['KEY']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
BUILD = 'build: {command: \'test -d "$DATA_DIR" && touch "$DATA_DIR/built" && touch made/by-build && echo "build has $LEVEL"\'}\n'


def test_code_that_writes_beside_itself_finds_its_data_there_release_after_release(
    laptop: Client, shared_host: Host
) -> None:
    env = {"KEY": {"generator": "secret"}, "LEVEL": "low", "NEEDED": {"description": "something"}}
    app = {
        "Procfile": "web: python3 app.py $PORT\nrelease: touch uploads/released\n", "app.py": BESIDE,
        "app.json": json.dumps({"env": env}), "shipit.yml": f"{BUILD}storage: [up:uploads, made]\n", "uploads/first": "page",
    }  # fmt: skip
    repo = laptop.repo("beside", app)
    refused = repo.push()
    assert refused.code != 0 and "app.json:1: the app needs the config var NEEDED" in refused.remote, str(refused)
    assert say(laptop, "config:set", "beside", "NEEDED=1").code == 0
    first = repo.push()
    assert first.code == 0 and "build has low" in first.remote and "Made a secret for KEY" in first.remote, str(first)
    assert "beside writes to app.sqlite3 beside its code: that is of its data from now on" in first.remote, str(first)
    key = laptop.get("beside").body.split()[2]
    repo.commit({"more": "code"})
    assert repo.push().code == 0
    count, size, same = laptop.get("beside").body.split()
    assert int(count) >= 4 and count == size and same == key
    data = "/var/lib/shipit/apps/beside/data"
    owner = shared_host.sh(f"stat -c '%U %n' {data}/up {data}/up/first {data}/app.sqlite3; ls {data}").out
    assert owner.count("app-beside") == 3 and "built" not in owner
    rows = {row["place"]: row["size"] for row in asked(laptop, "storage:list", "beside")}
    assert not shared_host.sh(f"ls {data}/made").out
    assert set(rows) == {"uploads", "made", "app.sqlite3", "$DATA_DIR"} and all(rows.values())
    seen = say(laptop, "run", "beside", "readlink uploads app.sqlite3; touch uploads/by-hand").out
    assert seen.split() == [f"{data}/up", f"{data}/app.sqlite3"]
    failed = say(laptop, "storage:unmount", "beside", "app.sqlite3")
    assert failed.code == 1 and "it answers, and prints that it lacks" in failed.text, "and nobody waits for a timeout"
    assert "app.sqlite3" in {row["place"] for row in asked(laptop, "storage:list", "beside")}
    assert say(laptop, "rollback", "beside").code == 0
    assert int(laptop.get("beside").body.split()[0]) > int(count)


FULL = """\
import os
if not os.path.isdir("made"):
    os.mkdir("made")
os.execvp("python3", ["python3", "-m", "http.server", "--bind", "127.0.0.1", os.environ["PORT"]])
"""
TOLD = "notify: {on: [storage], command: 'cat >> $DATA_DIR/told; echo >> $DATA_DIR/told'}\n"


def test_data_that_nears_its_quota_is_told_by_whoever_looks_and_more_of_it_is_not_given_by_itself(
    laptop: Client, shared_host: Host
) -> None:
    def grow(mib: int) -> None:
        # In one step: the worker of the release may look at any moment.
        assert say(laptop, "run", "full", f'fallocate -l {mib}M "$DATA_DIR/big"').code == 0

    def told() -> list[str]:
        text = shared_host.sh("cat /var/lib/shipit/apps/full/data/told", check=False).out
        # The last piece is a line that is being written, or nothing.
        return [json.loads(line)["text"] for line in text.split("\n")[:-1] if line]

    repo = laptop.repo("full", {**files("one"), "shipit.yml": TOLD})
    assert repo.push().code == 0
    assert "has no quota" in say(laptop, "storage:quota", "full").out
    viewer = laptop.ssh("shipit", "storage:quota", "full", "lots")
    assert viewer.code == 2 and "512M, 5G or 1T" in viewer.text, viewer
    assert say(laptop, "storage:quota", "full", "10M").code == 0
    row = next(row for row in asked(laptop, "storage:list", "full") if row["place"] == "$DATA_DIR")
    assert row["quota"].startswith("10M ("), row

    # Under 80 %, over it, over all of it: told once each, by the timer's service.
    for size in (2, 9, 9, 12):
        grow(size)
        shared_host.sh("systemctl start shipit-storage", check=True, timeout=100)
    # The worker of the release looks, too, and may be the one who tells.
    wait_for("both are told", lambda: len(told()) > 1)
    assert [text.partition(": ")[2].partition(" (")[0] for text in told()] == [
        "the data of full takes 9M of 10M", "the data of full takes 12M of 10M",
    ], told()  # fmt: skip
    assert asked(laptop, "storage:quota", "full")["level"] == "over"
    assert "12M of 10M" in asked(laptop, "status", "full")["data"]
    found = shared_host.sh("shipit doctor", check=False)
    assert "FAIL  full         the data of full takes 12M of 10M" in found.out, found.out
    assert "shipit storage:quota full 10G" in found.out
    repo.commit({"mark": "two"})
    pushed = repo.push()
    assert pushed.code == 0 and "The data of full takes 12M of 10M" in pushed.remote, str(pushed)
    audited = shared_host.sh("journalctl -t shipit -o cat _UID=$(id -u shipit)", check=True).out
    assert any('"verb": "storage:quota"' in line and '"app": "full"' in line for line in audited.splitlines())

    # What writes beside its code is given no place while there is no room; then it is.
    repo.commit({"Procfile": "web: python3 app.py $PORT\n", "app.py": FULL})
    refused = repo.push()
    assert refused.code != 0 and "full writes to made beside its code, and is not given that place" in refused.remote
    assert say(laptop, "storage:quota", "full", "1G").code == 0
    repo.commit({"mark": "three"})
    given = repo.push()
    assert given.code == 0 and "full writes to made beside its code: that is of its data" in given.remote, str(given)


def test_a_procfile_that_is_a_link_counts_and_the_build_knows_its_version(laptop: Client) -> None:
    project = (
        '[build-system]\nrequires = ["setuptools-scm"]\nbuild-backend = "back"\nbackend-path = ["."]\n'
        '[project]\nname = "shop"\ndynamic = ["version"]\n'
    )
    back = (
        "import os\ndef get_requires_for_build_editable(*a): return []\n"
        "def build_editable(where, *a):\n"
        "    raise SystemExit('KeyError: ' + repr(os.environ['SETUPTOOLS_SCM_PRETEND_VERSION_FOR_SHOP']))\n"
    )
    app = {**files("one"), "deploy/Procfile": "web: python main.py --at $SOCKET\nworker: sleep 1000\n"}
    repo = laptop.repo("linked", app)
    (repo.path / "Procfile").unlink()
    (repo.path / "Procfile").symlink_to("deploy/Procfile")
    repo.commit({})
    assert repo.push().code == 0
    assert {row["process"] for row in asked(laptop, "ps:scale", "linked")} == {"web", "worker"}
    repo.commit({"pyproject.toml": project, "back.py": back})
    repo.git("tag", "-a", "v2.4.1", "-m", "release")
    failed = repo.push("--follow-tags")
    assert failed.code != 0 and "KeyError: '2.4.1'" in failed.remote, str(failed)
    (repo.path / "Procfile").unlink()
    (repo.path / "Procfile").symlink_to("/etc/passwd")
    repo.commit({})
    refused = repo.push()
    assert refused.code != 0 and "Procfile: This is a link that leads to no file" in refused.remote, str(refused)


# Its build leaves a log and a database with a row beside the code, as frameworks do that are run in one.
UNHEEDING = """\
import http.server, os, sqlite3
key = os.environ["SECRET_KEY"]
log = open(os.path.join(os.getcwd(), "logs", "app.log"), "a")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        (count,) = base.execute("select count(*) from seen").fetchone()
        text = f"{count} {key}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
base = sqlite3.connect("app.sqlite3")
base.execute("create table if not exists seen (it)")
base.execute("insert into seen values (1)")
base.commit()
if os.environ.get("PORT"):
    http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_an_app_that_heeds_nothing_of_a_receiver_goes_live_as_it_is(laptop: Client, shared_host: Host) -> None:
    app = {
        "Procfile": "web: python3 app.py $PORT\n", "app.py": UNHEEDING,
        "shipit.yml": "build: {command: 'mkdir logs && SECRET_KEY=x PORT= python3 app.py'}\n",
    }  # fmt: skip
    repo = laptop.repo("unheeding", app)
    first = repo.push()
    assert first.code == 0 and "wants a SECRET_KEY of its own: made a secret" in first.remote, str(first)
    count, key = laptop.get("unheeding").body.split()
    assert count == "2" and len(key) >= 48 and key not in first.remote, "the build's row, and that of this start"
    repo.commit({"more": "code"})
    second = repo.push()
    assert second.code == 0 and "made a secret" not in second.remote, str(second)
    assert laptop.get("unheeding").body.split() == ["3", key]
    data = "/var/lib/shipit/apps/unheeding/data"
    assert shared_host.sh(f"stat -c %U {data}/app.sqlite3 {data}/logs/app.log").out.split() == ["app-unheeding"] * 2
