"""What there is and who may: domains, apps, keys, status, doctor; and what every command owes who types it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

from host.apps import asked, branch_at_server, build, doctor, files, live, newest, pushed, say, unwell

# -- domains, apps, locks


def test_domains_are_added_listed_removed_and_belong_to_one_app(laptop: Client) -> None:
    for app in ("mine", "yours"):
        pushed(laptop, app, app)
    assert say(laptop, "domains:add", "mine", "www.mine.example", "mine.example").code == 0
    assert asked(laptop, "domains:list", "mine")["domains"] == [
        "www.mine.example", "mine.example", f"mine.{laptop.domain()}",
    ]  # fmt: skip
    assert laptop.get("mine", host="www.mine.example").body == "mine"
    refused = say(laptop, "domains:add", "yours", "www.mine.example")
    assert refused.code == 2
    assert "belongs to mine" in refused.err
    assert laptop.get("mine", host="www.mine.example").body == "mine"
    assert asked(laptop, "domains:list", "yours")["default"] is True
    claimed = say(laptop, "domains:add", "mine", f"yours.{laptop.domain()}")
    assert claimed.code == 2, "another app's default name is its own too"
    assert say(laptop, "domains:remove", "mine", "www.mine.example").code == 0
    assert laptop.get("mine", host="www.mine.example").status == 404
    assert laptop.get("mine", host="mine.example").body == "mine"
    assert say(laptop, "domains:add", "yours", "www.mine.example").code == 0
    assert laptop.get("yours", host="www.mine.example").body == "yours"


def test_an_app_answers_at_each_kind_of_name_beside_its_default_one(laptop: Client, shared_host: Host) -> None:
    pushed(
        laptop, "names", "names",
        shipit_yml="proxy: {canonical: www.names.example, redirects: {/old/*: /new/*, /away: 'https://x.example/'}}\n",
    )  # fmt: skip
    asked_for = ("names.example", "www.names.example", "*.wild.names.example", "xn--bcher-kva.example")
    assert say(laptop, "domains:add", "names", *asked_for).ok
    for name in ("www.names.example", "WWW.Names.Example", "www.names.example.", "any.wild.names.example",
                 "xn--bcher-kva.example", f"names.{laptop.domain()}"):  # fmt: skip
        assert laptop.get("names", host=name).body == "names", name
    assert laptop.get("names", host="wild.names.example").status == 404
    twin = laptop.get("names", "/a?b=c", host="names.example")
    assert (twin.status, twin.headers["Location"]) == (301, "http://www.names.example/a?b=c")
    assert laptop.get("names", "/old/x?y=z").headers["Location"].endswith("/new/x?y=z")
    assert laptop.get("names", "/away").headers["Location"] == "https://x.example/"
    for wrong, right in (("Bücher.example", "xn--bcher-kva.example"), ("WWW.Names.example.", "www.names.example")):
        refused = say(laptop, "domains:add", "names", wrong)
        assert not refused.ok and f"In DNS it is written: {right}" in refused.err, refused
    # The machine has another address now than the one that its domain spells.
    shared_host.sh(
        "cp -p /etc/shipit/shipit.yml /root/kept; sed -i 's/^domain:.*/domain: 10-99-0-1.sslip.io/' /etc/shipit/shipit.yml"
    )
    try:
        there = f"{shared_host.ip.replace('.', '-')}.sslip.io"
        found = next(one for one in doctor(shared_host)["findings"] if "10-99-0-1" in one["what"])
        assert not found["well"] and f"./install.sh --domain {there}" in found["hint"]
        restarted = say(laptop, "deploy", "names")
        assert "lead to 10.99.0.1" in restarted.err + restarted.out and there in restarted.err + restarted.out, (
            restarted
        )
    finally:
        shared_host.sh("cp -p /root/kept /etc/shipit/shipit.yml; shipit doctor --fix", check=False)


def test_an_unknown_name_gets_nobodys_app(laptop: Client, blog: Repo) -> None:
    answer = laptop.get("blog", host="nobody.example")
    assert answer.status == 404
    assert "blog" not in answer.body


def test_apps_are_created_listed_and_destroyed_with_all_they_had(laptop: Client, shared_host: Host) -> None:
    assert say(laptop, "apps:create", "brief").code == 0
    assert say(laptop, "apps:exists", "brief").code == 0
    assert next(row for row in asked(laptop, "apps") if row["app"] == "brief")["state"] == "new"
    pushed(laptop, "brief", "one")
    assert next(row for row in asked(laptop, "apps") if row["app"] == "brief")["state"] == "live"
    unsure = say(laptop, "apps:destroy", "brief", input="no\n")
    assert unsure.code == 2
    assert laptop.get("brief").body == "one"
    assert say(laptop, "apps:destroy", "brief", input="brief\n").code == 0
    assert say(laptop, "apps:exists", "brief").code == 1
    assert laptop.get("brief").status == 404
    left = shared_host.sh(
        "ls -d /var/lib/shipit/apps/brief /run/shipit/brief /etc/nginx/shipit/brief.conf; "
        "getent passwd app-brief build-brief; getent group app-brief; ls /etc/systemd/system | grep shipit-brief; "
        "systemctl list-units --all --plain --no-legend 'shipit-brief*'; ps -eo user:40 | grep brief",
        check=False,
    )
    assert left.out == "", "something of the app is left"
    again = laptop.repo("brief", files("anew"), name="again")
    assert again.push().code == 0
    assert live(laptop, "brief") == "v1"
    assert laptop.get("brief").body == "anew"


def test_a_locked_app_refuses_changes_with_the_reason(laptop: Client) -> None:
    repo = pushed(laptop, "frozen", "one")
    assert say(laptop, "apps:lock", "frozen", "-m", "the database moves").code == 0
    repo.commit({"mark": "two\n"})
    result = repo.push()
    assert result.code != 0
    assert "the database moves" in result.text
    assert "apps:unlock frozen" in result.text
    for words in (
        "config:set frozen A=1", "ps:scale frozen web=2", "ps:restart frozen", "ps:restart frozen web", "ps:stop frozen",
        "domains:add frozen x.example.org", "git:set frozen force-push on",
        "apps:destroy frozen --force", "rollback frozen", "deploy frozen", "releases:pin frozen v1", "releases:unpin frozen v1",
    ):  # fmt: skip
        changed = say(laptop, *words.split())
        assert (changed.code, "the database moves" in changed.err) == (75, True), f"{words}: {changed}"
    assert say(laptop, "status", "frozen").code == 0
    assert laptop.get("frozen").body == "one"
    assert newest(laptop, "frozen")["release"] == "v1"
    assert say(laptop, "apps:unlock", "frozen").code == 0
    assert repo.push().code == 0
    assert laptop.get("frozen").body == "two"


# -- keys


def test_a_key_may_do_what_its_role_and_apps_allow_and_no_more(
    laptop: Client, shared_host: Host, tmp_path: pytest.TempPathFactory, client_of: Callable[..., Client]
) -> None:
    for app in ("hers", "his"):
        pushed(laptop, app, app)
    ann, eve = client_of(shared_host, "ann"), client_of(shared_host, "eve")
    stranger = ann.ssh("apps")
    assert stranger.code == 255, "an unknown key gets nowhere"
    add = say(laptop, "ssh-keys:add", "ann", "--app", "hers", input=ann.public_key + "\n")
    assert add.code == 0, str(add)
    assert say(laptop, "ssh-keys:add", "eve", "--role", "view", input=eve.public_key + "\n").code == 0
    listed = {key["name"]: (key["role"], key["apps"]) for key in asked(laptop, "ssh-keys:list")}
    assert listed["ann"] == ("deploy", ["hers"])
    assert listed["eve"] == ("view", None)

    hers = ann.repo("hers", files("by ann"))
    pushed_by_ann = hers.push("--force", "-o", "force")
    assert pushed_by_ann.code == 0, str(pushed_by_ann)
    assert newest(laptop, "hers")["by"] == "ann"
    his = ann.repo("his", files("by ann"))
    assert his.push("--force", "-o", "force").code != 0
    new = ann.repo("third", files("by ann"))
    assert new.push().code != 0, "a key for one app cannot make another"
    assert say(laptop, "apps:exists", "third").code == 1
    denied = [("config:show", "his"), ("logs", "his"), ("run", "his", "ls"), ("rollback", "his"), ("apps:create", "x")]
    for words in [*denied, ("ssh-keys:list",), ("domains:add", "hers", "a.example"), ("doctor",)]:
        assert say(ann, *words).code == 77, f"ann may {words}"
    assert [row["app"] for row in asked(ann, "apps")] == ["hers"]

    assert eve.repo("hers", files("by eve")).push("--force", "-o", "force").code != 0
    for words in [("config:set", "hers", "A=1"), ("config:show", "hers"), ("ps:stop", "hers"), ("run", "hers", "ls")]:
        assert say(eve, *words).code == 77, f"eve may {words}"
    assert say(eve, "status", "hers").code == 0
    assert say(eve, "releases", "his").code == 0
    assert (laptop.get("hers").body, laptop.get("his").body) == ("by ann", "his")

    assert say(laptop, "ssh-keys:remove", "ann").code == 0
    assert ann.ssh("apps").code != 0


# -- status, cancel, doctor


def test_status_tells_what_serves_and_exits_1_when_it_does_not(laptop: Client, blog: Repo, shared_host: Host) -> None:
    shown = asked(laptop, "status", "blog")
    assert (shown["state"], shown["processes"]) == ("live", "2 of 2 running")
    assert shown["release"] == live(laptop, "blog")
    unit = shared_host.sh("systemctl list-units --plain --no-legend 'shipit-blog-worker-*'").out.split()[0]
    shared_host.run("systemctl", "stop", unit)
    bad = say(laptop, "status", "blog", "--format", "json")
    assert bad.code == 1
    assert json.loads(bad.out)["processes"] == "1 of 2 running"
    shared_host.run("systemctl", "start", unit)
    assert say(laptop, "status", "blog").code == 0


def test_a_long_build_is_cancelled_and_the_next_push_works(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "patient", "one")
    repo.commit({"shipit.yml": build("echo it takes long; sleep 4343"), "mark": "two\n"})
    push = repo.start_push()
    wait_for("the build", lambda: "it takes long" in push.so_far())
    assert "v2" in asked(laptop, "status", "patient")["making"]
    watcher = laptop.start_ssh("releases:output patient -f")
    result = say(laptop, "cancel", "patient")
    assert result.code == 0, str(result)
    ended = push.wait(20)
    assert ended.code != 0
    assert "v2 was cancelled." in ended.remote
    assert "v1 is still serving" in ended.remote
    assert "it takes long" in watcher.wait(20).out
    assert not shared_host.run("pgrep", "-f", "sleep 4343", check=False).ok
    assert newest(laptop, "patient")["status"] == "cancelled"
    assert laptop.get("patient").body == "one"
    repo.commit({"shipit.yml": None})
    assert repo.push().code == 0
    assert laptop.get("patient").body == "two"
    assert "Nothing is being made" in say(laptop, "cancel", "patient").out


@contextmanager
def harmed(host: Host, script: str) -> Iterator[None]:
    host.sh(f"set -e; {script}")
    yield
    fixed = host.run("shipit", "doctor", "--fix", check=False)
    assert fixed.code == 0, str(fixed)
    assert "mended" in fixed.out
    assert unwell(host) == []


def test_doctor_finds_what_is_wrong_and_mends_it(laptop: Client, blog: Repo, shared_host: Host) -> None:
    assert unwell(shared_host) == [], "nothing is wrong yet"
    assert shared_host.run("shipit", "doctor").out.rstrip().endswith("none not well.")
    number, at = live(laptop, "blog"), branch_at_server(blog)

    with harmed(shared_host, f"systemctl stop shipit-blog-web-{number}@1.service"):
        assert "blog: 1 of 2 processes running" in unwell(shared_host)
        assert laptop.get("blog").status == 502
    assert laptop.get("blog").body == "blog"

    with harmed(shared_host, "rm /etc/nginx/shipit/blog.conf; nginx -s reload"):
        wait_for("nginx to have lost it", lambda: laptop.get("blog").status == 404)
        assert any(line.startswith("blog: ") for line in unwell(shared_host)), "a lost vhost goes unnoticed"
    assert laptop.get("blog").body == "blog"

    blog.commit({"mark": "elsewhere\n"})
    blog.push("-o", "no-deploy")
    repo = "/var/lib/shipit/apps/blog/repo.git"
    with harmed(shared_host, f"runuser -u shipit -- git -C {repo} update-ref refs/heads/main {blog.head}"):
        assert "blog: branch main is not the live commit" in unwell(shared_host)
    assert branch_at_server(blog) == at
    assert laptop.get("blog").body == "blog"
    assert shared_host.failed_units() == []


def test_doctor_tells_a_stopped_proxy_and_a_silent_agent(shared_host: Host, blog: Repo) -> None:
    shared_host.run("systemctl", "stop", "nginx")
    try:
        assert "host: nginx runs" in unwell(shared_host)
    finally:
        shared_host.run("systemctl", "start", "nginx")
    shared_host.run("systemctl", "stop", "shipit-agent.socket")
    try:
        done = shared_host.run("shipit", "doctor", check=False)
    finally:
        shared_host.run("systemctl", "start", "shipit-agent.socket")
    assert done.code == 1 and "Traceback" not in done.err, str(done)
    assert "the agent does not answer" in done.out and "nginx runs" in done.out, str(done)
    shared_host.run("systemctl", "stop", "shipit-gateway.socket")
    try:
        assert "host: shipit-gateway.socket is inactive" in unwell(shared_host)
    finally:
        shared_host.run("systemctl", "start", "shipit-gateway.socket")
    assert unwell(shared_host) == []


# -- what every command owes


MISTAKES: list[tuple[str, ...]] = [
    ("frobnicate",),
    ("status", "nosuch"),
    ("releases", "nosuch"),
    ("run", "nosuch", "ls"),
    ("logs", "nosuch"),
    ("config:show", "nosuch"),
    ("apps:destroy", "nosuch", "--force"),
    ("status", "../etc"),
    ("status", "Blog"),
    ("status", "blog", "--frob"),
    ("status",),
    ("apps:create", "blog"),
    ("apps:create", "shipit"),
    ("apps:create", "x" * 27),
    ("rollback", "blog", "v99"),
    ("rollback", "blog", "seven"),
    ("releases:info", "blog", "v0"),
    ("releases:output", "blog", "v99"),
    ("releases:pin", "blog", "v99"),
    ("config:get", "blog", "NOPE"),
    ("config:set", "blog", "1lower=1"),
    ("config:set", "blog", "PATH=/x"),
    ("config:set", "blog", "SHIPIT_APP=x"),
    ("config:set", "blog", "NOVALUE"),
    ("ps:scale", "blog", "wroker=2"),
    ("ps:scale", "blog", "web=9999"),
    ("ps:scale", "blog", "web=-1"),
    ("ps:restart", "blog", "nosuch"),
    ("domains:add", "blog", "not_a_domain"),
    ("domains:add", "blog", "UPPER.example"),
    ("domains:remove", "blog", "not.there.example"),
    ("git:set", "blog", "deploy-branch", "-x"),
    ("git:set", "blog", "force-push", "maybe"),
    ("ssh-keys:remove", "nosuch"),
    ("ssh-keys:add", "bad;name"),
    ("ssh-keys:add", "nokey"),
    ("logs", "blog", "-n", "0"),
    ("releases", "blog", "--format", "xml"),
]


def test_a_mistake_is_one_clear_line_and_changes_nothing(laptop: Client, blog: Repo, shared_host: Host) -> None:
    def state() -> str:
        watched = "/var/lib/shipit/apps/*/releases/app.json /var/lib/shipit/apps/*/releases/v*/release.json"
        keys = "/var/lib/shipit/home/.ssh/authorized_keys /var/lib/shipit/home/keys.json"
        places = "ls /var/lib/shipit/apps /var/lib/shipit/apps/*/*; cut -d: -f1 /etc/passwd"
        return shared_host.sh(f"sha256sum {watched} {keys} /etc/nginx/shipit/*; {places}").out

    before, wrong = state(), []
    for words in MISTAKES:
        result = say(laptop, *words, input="")
        lines = result.err.splitlines()
        clear = bool(lines) and all(line.startswith(" !     ") for line in lines) and len(lines) <= 3
        if result.code != 2 or not clear or "Traceback" in result.text or result.out:
            wrong.append(f"{' '.join(words)}: {result}")
    assert not wrong, "\n".join(wrong)
    assert state() == before


LISTS: list[tuple[str, ...]] = [
    ("apps",),
    ("status", "blog"),
    ("releases", "blog"),
    ("releases:info", "blog", "v1"),
    ("config:show", "blog"),
    ("config:keys", "blog"),
    ("ps", "blog"),
    ("ps:scale", "blog"),
    ("domains:list", "blog"),
    ("ssh-keys:list",),
    ("plan", "blog"),
    ("doctor",),
]


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_every_list_is_there_for_programs_and_for_people(words: tuple[str, ...], laptop: Client, blog: Repo) -> None:
    assert asked(laptop, *words) is not None
    shown = say(laptop, *words)
    assert shown.code == 0, shown
    assert not shown.out.startswith(("{", "["))
    assert "\x1b" not in shown.out, "no colour where there is no terminal"


def test_every_command_explains_itself(laptop: Client, blog: Repo) -> None:
    told = say(laptop, "shipit", "--help", check=True).out
    assert "shipit --help" in laptop.ssh().out, "who only logs in is told"
    names = [line.split()[0] for line in told.splitlines() if re.match(r"  [a-z-]+(:[a-z-]+)?  ", line)]
    assert len(names) > 30
    for name in names[::4]:
        assert say(laptop, name, "--help", check=True).out.startswith("Usage: shipit"), name


def test_the_same_commands_work_for_root_on_the_server(laptop: Client, blog: Repo, shared_host: Host) -> None:
    assert "blog" in shared_host.run("shipit", "apps").out
    assert json.loads(shared_host.run("shipit", "status", "blog", "--format", "json").out)["state"] == "live"
    restarted = shared_host.run("shipit", "ps:restart", "blog")
    assert f"{newest(laptop, 'blog')['release']} is live" in restarted.out
    denied = shared_host.run("shipit", "apps", user="nobody", check=False)
    assert denied.code == 2
    assert "shipit@" in denied.err and " apps" in denied.err
    assert {one["well"] for one in doctor(shared_host)["findings"]} == {True}
