"""A push: live when it says so, refused or failed with the reason when not, and then nothing that serves has changed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

from host.apps import (
    asked,
    branch_at_server,
    build,
    environment_of,
    files,
    live,
    newest,
    pushed,
    say,
    until_body,
)

FIRST_PUSH = re.compile(
    r"""-----> Creating tiny
       Ctrl-C detaches\. Watch: ssh shipit@\S+ releases:output tiny -f
       Stop: ssh shipit@\S+ cancel tiny
-----> Building v1 from main [0-9a-f]{8} first
(       .*
)*-----> Starting web\.1
-----> Checking web\.1
       web\.1 is healthy: / answered 200 \(\d+\.\d s\)
-----> v1 is live at http://tiny\.\S+ \(\d+\.\d s\)"""
)


@pytest.fixture(scope="module")
def serving(laptop: Client) -> Repo:
    """An app whose good release the broken pushes must not touch."""
    return pushed(laptop, "broken", "good", procfile="web: python main.py --at $SOCKET\nrelease: true\n")


def test_a_first_push_makes_the_app_and_is_live_through_nginx_when_it_returns(laptop: Client) -> None:
    repo = laptop.repo("tiny", files("one"))
    result = repo.push()
    assert result.code == 0, str(result)
    answer = laptop.get("tiny")
    assert (answer.status, answer.body) == (200, "one")
    told = "\n".join(line.removeprefix("remote: ").rstrip() for line in result.err.splitlines() if "remote:" in line)
    told = "\n".join(line for line in result.err.splitlines() if line.startswith("----->")) + "\n" + told
    assert FIRST_PUSH.fullmatch(told), f"the output is not what was promised:\n{told}"


def test_what_a_killed_agent_left_of_an_old_releases_units_goes_with_the_next_release(
    shared_host: Host, laptop: Client
) -> None:
    def units() -> list[str]:
        # One may go between the shell's look and that of ls.
        names = "shipit-remains-*-v*@.service"
        return shared_host.sh(f"cd /etc/systemd/system && ls -d {names}", check=False).out.split()

    repo = pushed(laptop, "remains", "one")
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    wait_for("the end of v1", lambda: units() == ["shipit-remains-web-v2@.service"])
    shared_host.sh("cd /etc/systemd/system && cp shipit-remains-web-v2@.service shipit-remains-web-v1@.service")
    repo.commit({"mark": "three\n"})
    assert repo.push().code == 0
    wait_for("the end of what was left", lambda: units() == ["shipit-remains-web-v3@.service"])
    assert laptop.get("remains").body == "three"


@pytest.mark.parametrize("lock", ["HEAD.lock", "refs/heads/main.lock"])
def test_a_lock_that_a_power_cut_left_in_the_repository_stops_no_push(
    shared_host: Host, laptop: Client, lock: str
) -> None:
    app = "locked-head" if lock == "HEAD.lock" else "locked-main"
    repo = pushed(laptop, app, "one")
    shared_host.sh(f"install -o shipit -g shipit -m 0640 /dev/null /var/lib/shipit/apps/{app}/repo.git/{lock}")
    repo.commit({"mark": "two\n"})
    result = repo.push()
    assert result.code == 0, str(result)
    assert laptop.get(app).body == "two"


def test_a_second_push_replaces_the_code(laptop: Client) -> None:
    repo = pushed(laptop, "second", "one")
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    assert laptop.get("second").body == "two"
    assert live(laptop, "second") == "v2"
    assert asked(laptop, "releases", "second")[1]["status"] == "superseded"


BREAKS: dict[str, tuple[dict[str, str | None], list[str]]] = {
    "the build fails": (
        {"shipit.yml": build("echo there is no such package >&2; exit 3")},
        ["there is no such package", r"The build of v\d+ failed \(exit 3\)"],
    ),
    "a dependency does not exist": (
        {"requirements.txt": "shipit-lab-no-such-package==9.9.9\n"},
        ["shipit-lab-no-such-package", r"The build of v\d+ failed"],
    ),
    "the release command fails": (
        {"Procfile": "web: python main.py --at $SOCKET\nrelease: echo the table is locked; exit 4\n"},
        ["the table is locked", r"release command failed \(exit 4\)", "not undone"],
    ),
    "it crashes on start": (
        {"main.py": "def connect():\n    raise RuntimeError('the database is away')\n\nconnect()\n"},
        [r"Traceback \(most recent call last\)", "RuntimeError: the database is away", "web.1"],
    ),
    "it never answers": (
        {
            "Procfile": "web: sleep 1000 # $SOCKET\n",
            "shipit.yml": "processes: {web: {listen: socket, healthcheck: {path: /, timeout: 2}}}\n",
        },
        [r"web\.1 did not answer on / within 2 s"],
    ),
    "it answers only after the timeout": (
        {"shipit.yml": "processes: {web: {healthcheck: {path: /slow/9, timeout: 2}}}\n"},
        [r"web\.1 did not answer on /slow/9 within 2 s"],
    ),
    "it answers 500": (
        {"shipit.yml": "processes: {web: {healthcheck: {path: /status/500, timeout: 2}}}\n"},
        [r"web\.1 did not answer on /status/500 within 2 s", "500"],
    ),
    "a worker beside it crashes": (
        {
            "Procfile": "web: python main.py --at $SOCKET\nworker: echo no queue; exit 1\n",
            "shipit.yml": "processes: {worker: {count: 1}}\n",
        },
        [r"worker\.1", "no queue"],
    ),
}


def test_three_failed_first_pushes_install_once(laptop: Client, shared_host: Host) -> None:
    never = {**files("never"), "Procfile": "web: echo not today; exit 1\n", "requirements.txt": "wheel==0.45.1\n"}
    repo = laptop.repo("trying", never)
    installs = []
    for _ in range(3):
        pushed = repo.push()
        assert pushed.code != 0, str(pushed)
        installs.append("Installing from requirements.txt" in pushed.remote)
    repo.commit({"Procfile": files("x")["Procfile"]})
    last = repo.push(check=True)
    assert [*installs, "Installing from requirements.txt" in last.remote] == [True, False, False, False]
    # Pruning begins when the push has ended.
    kept = "cd /var/lib/shipit/apps/trying; ls slugs config"
    wanted = "config: v4.json slugs: v1 v4"
    wait_for("it to be pruned", lambda: " ".join(shared_host.sh(kept).out.split()) == wanted)


@pytest.mark.parametrize("what", BREAKS)
def test_a_push_that_fails_says_why_and_the_old_release_serves_all_the_time(
    what: str, laptop: Client, serving: Repo, shared_host: Host
) -> None:
    changes, told = BREAKS[what]
    before, at = live(laptop, "broken"), branch_at_server(serving)
    serving.git("reset", "-q", "--hard", at)
    serving.commit({"mark": "bad\n", **changes}, what)
    with laptop.load("broken", threads=2, pause=0.02) as load:
        results = [serving.push(), serving.push()]
    report = load.stop()
    assert report.failed == 0, str(report)
    assert set(report.by_body) == {"good"}
    for result in results:
        assert result.code != 0, str(result)
        for words in told:
            assert re.search(words, result.remote), f"the push does not say {words!r}:\n{result}"
        assert f"{before} is still serving" in result.remote, str(result)
        assert "Everything up-to-date" not in result.text
    rows = asked(laptop, "releases", "broken")
    assert [row["status"] for row in rows[:2]] == ["failed", "failed"], "the same push has to be a release of its own"
    assert live(laptop, "broken") == before
    assert branch_at_server(serving) == at
    left = shared_host.sh("ps -eo user:40,args --no-headers", check=False).out
    assert [line for line in left.splitlines() if line.startswith("build-broken")] == []
    assert {row["release"] for row in asked(laptop, "ps", "broken")} == {before}


def test_the_same_push_goes_live_once_its_reason_to_fail_is_gone(laptop: Client, shared_host: Host) -> None:
    repo = laptop.repo("heals", files("one", "web: python main.py --at $SOCKET\nrelease: test -e $DATA_DIR/ready\n"))
    failed = repo.push()
    assert failed.code != 0, str(failed)
    assert "heals has no live release yet" in failed.remote
    assert laptop.get("heals").status in (404, 503)
    shared_host.sh("install -o app-heals /dev/null /var/lib/shipit/apps/heals/data/ready")
    again = repo.push()
    assert again.code == 0, str(again)
    assert laptop.get("heals").body == "one"


MISTAKES = {
    "a line that is no command": ({"Procfile": "web python main.py\n"}, "Procfile:1"),
    "an unknown key": ({"shipit.yml": "proceses: {}\n"}, "shipit.yml:1"),
    "settings of a process type that there is not": (
        {"shipit.yml": "processes: {wroker: {count: 1}}\n"},
        "wroker",
    ),
    "a virtual environment in the commit": ({".venv/bin/python": "x\n"}, ".venv"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_the_manifest_refuses_the_push_with_its_place_and_makes_no_release(
    what: str, laptop: Client, serving: Repo
) -> None:
    changes, told = MISTAKES[what]
    at, number = branch_at_server(serving), newest(laptop, "broken")["release"]
    serving.git("reset", "-q", "--hard", at)
    serving.commit(changes, what)
    result = serving.push()
    assert result.code != 0
    assert "pre-receive hook declined" in result.err
    assert told in result.remote, str(result)
    assert newest(laptop, "broken")["release"] == number
    assert branch_at_server(serving) == at


def test_a_first_push_that_is_refused_leaves_no_app(laptop: Client, shared_host: Host) -> None:
    refused = laptop.repo("mistyped", files("x", procfile="web python main.py\n")).push()
    assert refused.code != 0 and "mistyped is not there again" in refused.text, str(refused)
    assert "mistyped" not in say(laptop, "apps:list").out
    assert "mistyped" not in shared_host.sh("getent passwd; ls /var/lib/shipit/apps /etc/systemd/system").out
    assert laptop.repo("mistyped", files("two"), name="again").push().code == 0


def test_another_branch_is_refused_with_what_to_type(laptop: Client) -> None:
    repo = pushed(laptop, "branches", "one")
    repo.commit({"mark": "two\n"})
    result = repo.push(ref="HEAD:feature")
    assert result.code != 0
    assert "branches deploys the branch main, not feature." in result.remote
    assert "feature:main" in result.remote
    assert laptop.get("branches").body == "one"
    assert newest(laptop, "branches")["release"] == "v1"
    assert repo.git("ls-remote", "shipit", "refs/heads/feature").out == ""
    assert say(laptop, "git:set", "branches", "deploy-branch", "feature").code == 0
    assert repo.push(ref="HEAD:feature").code == 0
    assert laptop.get("branches").body == "two"


def test_the_deploy_branch_is_not_deleted_by_a_push(laptop: Client) -> None:
    repo = pushed(laptop, "kept", "one")
    result = repo.push(ref=":main")
    assert result.code != 0
    assert "git:set kept delete on" in result.remote
    assert branch_at_server(repo) == repo.head


def test_no_deploy_stores_and_the_next_plain_push_deploys(laptop: Client) -> None:
    repo = pushed(laptop, "stored", "one")
    repo.commit({"mark": "two\n"})
    result = repo.push("-o", "no-deploy")
    assert result.code == 0, str(result)
    assert "not deployed" in result.remote
    assert laptop.get("stored").body == "one"
    assert newest(laptop, "stored")["release"] == "v1"
    assert repo.push().code == 0
    assert laptop.get("stored").body == "two"


def test_rewritten_history_needs_the_option_force_and_that_builds_anew(laptop: Client) -> None:
    repo = pushed(laptop, "forced", "one")
    repo.write({"mark": "two\n"})
    repo.git("commit", "-q", "-a", "--amend", "-m", "another first")
    refused = repo.push("--force")
    assert refused.code != 0
    assert "-o force" in refused.remote
    assert laptop.get("forced").body == "one"
    assert repo.push("--force", "-o", "force").code == 0
    assert laptop.get("forced").body == "two"
    assert asked(laptop, "releases:info", "forced", "v2")["environment"] == "v2"


def test_an_unchanged_environment_is_shared_and_force_makes_a_new_one(laptop: Client) -> None:
    repo = pushed(laptop, "shares", "one")
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    assert asked(laptop, "releases:info", "shares", "v2")["environment"] == "v1"
    repo.commit({"mark": "three\n"})
    assert repo.push("-o", "force").code == 0
    assert asked(laptop, "releases:info", "shares", "v3")["environment"] == "v3"
    assert laptop.get("shares").body == "three"


def test_a_push_carries_a_message_into_the_history(laptop: Client) -> None:
    repo = laptop.repo("noted", files("one"))
    assert repo.push("-o", "message=ticket 7: the blue one").code == 0
    assert newest(laptop, "noted")["what"] == "ticket 7: the blue one"


def test_an_unknown_push_option_is_refused(laptop: Client, serving: Repo) -> None:
    serving.git("reset", "-q", "--hard", branch_at_server(serving))
    serving.commit({}, "nothing")
    result = serving.push("-o", "no-deplyo")
    assert result.code != 0
    assert "no-deploy, force, drop-web, message=TEXT" in result.remote


def test_a_shallow_clone_can_push(laptop: Client) -> None:
    origin = laptop.repo("origin", files("one"), name="origin")
    for number in range(3):
        origin.commit({"mark": f"{number}\n"})
    laptop.run("git", "clone", "-q", "--depth=1", f"file://{origin.path}", "shallow")
    shallow = laptop.home / "shallow"
    push = ["git", "-C", str(shallow), "push", f"shipit@{laptop.ip}:shallow", "main"]
    first = laptop.run(*push, check=False)
    assert first.code == 0, str(first)
    assert laptop.get("shallow").body == "2"
    (shallow / "mark").write_text("deep\n")
    laptop.run("git", "-C", str(shallow), "commit", "-q", "-am", "next")
    assert laptop.run(*push, check=False).code == 0
    assert laptop.get("shallow").body == "deep"


def test_a_tag_is_stored_and_not_deployed(laptop: Client, serving: Repo) -> None:
    number = newest(laptop, "broken")["release"]
    serving.git("reset", "-q", "--hard", branch_at_server(serving))
    serving.commit({"mark": "tagged\n"}, "tagged")
    serving.git("tag", "-a", "-m", "one", "v1.0")
    result = serving.push(ref="v1.0")
    assert result.code == 0, str(result)
    assert "Tags are not deployed" in result.remote
    assert laptop.get("broken").body == "good"
    assert newest(laptop, "broken")["release"] == number


def test_a_submodule_comes_with_the_push(laptop: Client, shared_host: Host) -> None:
    """From another app of the same server, read over ssh with a key that the server's own user has."""
    home = "/var/lib/shipit/home/.ssh"
    shared_host.sh(f"ssh-keygen -q -t ed25519 -N '' -C lib -f {home}/id_ed25519", user="shipit")
    shared_host.sh(f'sed "s/^/localhost /" /etc/ssh/ssh_host_ed25519_key.pub >{home}/known_hosts', user="shipit")
    public = shared_host.read(f"{home}/id_ed25519.pub")
    library = pushed(laptop, "library", "from the library")
    assert say(laptop, "ssh-keys:add", "own", "--role", "view", "--app", "library", input=public).code == 0
    repo = laptop.repo("parent", files("unused", "web: cd library && exec python main.py --at $SOCKET\n"))
    repo.write({".gitmodules": '[submodule "library"]\n\tpath = library\n\turl = ssh://shipit@localhost/library\n'})
    repo.git("add", ".gitmodules")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{library.head},library")
    repo.git("commit", "-q", "-m", "with a library")
    result = repo.push()
    assert result.code == 0, str(result)
    assert laptop.get("parent").body == "from the library"


def test_a_flask_app_needs_no_procfile(laptop: Client) -> None:
    source = "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get('/')\ndef index():\n    return 'flask'\n"
    repo = laptop.repo("flasky", {"app.py": source, "requirements.txt": "flask\ngunicorn\n"})
    result = repo.push()
    assert result.code == 0, str(result)
    assert "No Procfile: Flask at app.py:3" in result.remote
    assert laptop.get("flasky").body == "flask"
    assert asked(laptop, "plan", "flasky")["runtime"].startswith("python")


def test_uvicorn_without_a_bind_is_told_where_to_listen(laptop: Client) -> None:
    source = (
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "        await send({'type': 'http.response.body', 'body': b'asgi'})\n"
    )
    more = {"requirements.txt": "uvicorn\n", "Procfile": "web: uvicorn --lifespan=off app:app\n"}
    result = laptop.repo("asgi", {"app.py": source, **more}).push()
    assert result.code == 0, str(result)
    assert laptop.get("asgi").body == "asgi"


def test_an_app_that_knows_only_port_gets_one(laptop: Client) -> None:
    repo = pushed(laptop, "ported", "one", procfile="web: python main.py --port $PORT\n")
    assert "SOCKET" not in environment_of(laptop, "ported")
    repo.commit({"mark": "two\n"})
    with laptop.load("ported") as load:
        assert repo.push().code == 0
        load.wait_for_body("two")
    report = load.stop()
    assert report.failed == 0, str(report)
    assert laptop.get("ported").body == "two"


def test_requests_are_shared_by_all_web_processes(laptop: Client) -> None:
    pushed(laptop, "several", shipit_yml="processes: {web: {count: 3}}\n")
    seen = {laptop.get("several", "/who").body.split()[0] for _ in range(30)}
    assert seen == {"web.1", "web.2", "web.3"}


def test_an_app_without_web_is_live_and_takes_no_requests(laptop: Client) -> None:
    worker = "import os, time\nprint('at work', os.environ['SHIPIT_PROCESS'], flush=True)\ntime.sleep(10**6)\n"
    repo = laptop.repo(
        "jobs",
        {
            "work.py": worker,
            "Procfile": "worker: python work.py\n",
            "shipit.yml": "processes: {worker: {count: 2, healthcheck: {settle: 1}}}\n",
        },
    )
    result = repo.push()
    assert result.code == 0, str(result)
    rows = asked(laptop, "ps", "jobs")
    assert [(row["process"], row["state"]) for row in rows] == [("worker.1", "running"), ("worker.2", "running")]
    assert laptop.get("jobs").status == 404
    logs: Callable[[], bool] = lambda: "at work worker.2" in say(laptop, "logs", "jobs").out  # noqa: E731
    wait_for("the worker's line", logs)


def test_the_release_command_runs_once_with_the_new_config_before_the_switch(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "migrates", "one")
    assert say(laptop, "config:set", "migrates", "COLOUR=blue").code == 0
    note = (
        "import os, urllib.request\n"
        "ask = urllib.request.Request('http://127.0.0.1/', headers={'Host': os.environ['SITE']})\n"
        "served = urllib.request.urlopen(ask).read().decode()\n"
        "with open(os.path.join(os.environ['DATA_DIR'], 'notes'), 'a') as notes:\n"
        "    print(open('mark').read().strip(), os.environ['COLOUR'], served, file=notes)\n"
    )
    site = f"SITE=migrates.{laptop.domain()}"
    repo.commit(
        {
            "mark": "two\n",
            "note.py": note,
            "Procfile": f"web: python main.py --at $SOCKET\nrelease: {site} python note.py\n",
        }
    )
    result = repo.push()
    assert result.code == 0, str(result)
    notes = "/var/lib/shipit/apps/migrates/data/notes"
    assert shared_host.read(notes) == "two blue one\n"
    until_body(laptop, "migrates", "two")
    assert say(laptop, "config:set", "migrates", "COLOUR=red").code == 0
    assert say(laptop, "ps:restart", "migrates").code == 0
    assert shared_host.read(notes) == "two blue one\n", "a config change or a restart is no new code to prepare for"


def test_the_manifests_defaults_and_domains_take_effect_and_config_vars_win(laptop: Client) -> None:
    manifest = "env: {COLOUR: red, SIZE: small}\ndomains: [www.manifest.example]\n"
    pushed(laptop, "declares", "one", shipit_yml=manifest)
    assert laptop.get("declares", host="www.manifest.example").body == "one"
    assert say(laptop, "config:set", "declares", "COLOUR=blue").code == 0
    answer = laptop.get("declares", "/env", host="www.manifest.example").body
    assert '"COLOUR": "blue"' in answer
    assert '"SIZE": "small"' in answer
