"""The life of processes: how they are told to end, how they come back, where they may listen."""

from __future__ import annotations

from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import asked, files, live, pushed, say, unwell

# Finishes the job in hand at SIGTERM, and writes down that it did.
WORKER = """\
import os, signal, sys, time
stop = []
def note(text):
    with open(os.environ["DATA_DIR"] + "/notes", "a") as f: f.write(f"{os.environ['SHIPIT_RELEASE']} {sys.argv[1]} {text}\\n")
def term(*_):
    note("term"); stop.append(1)
signal.signal(signal.SIGTERM, term)
note("up")
while not stop: time.sleep(0.05)
time.sleep(1)
note("finished")
"""
SHELLS = {
    "plain": "python worker.py plain", "script": "./start.sh", "chain": "cd . && python worker.py chain",
    "tail": "python worker.py tail; echo ended", "pipe": "python worker.py pipe 2>&1 | cat", "errors": "python worker.py errors 2>&1",
}  # fmt: skip


SOON = "processes: {web: {healthcheck: {path: /, timeout: 8}}}\n"


def test_every_process_gets_sigterm_and_its_drain_whatever_shell_stays_before_it(
    laptop: Client, shared_host: Host
) -> None:
    lines = "".join(f"{kind}: {command}\n" for kind, command in SHELLS.items())
    counts = "processes:\n" + "".join(f"  {kind}: {{count: 1, healthcheck: {{settle: 1}}}}\n" for kind in SHELLS)
    repo = laptop.repo("shells", files("one", procfile=f"web: python main.py --at $SOCKET\n{lines}", shipit_yml=counts))
    repo.write({"worker.py": WORKER, "start.sh": "#!/bin/sh\necho preparing\npython worker.py script\n"})
    repo.git("add", "-A")
    repo.git("update-index", "--chmod=+x", "start.sh")
    repo.git("commit", "-qm", "workers")
    assert repo.push().code == 0
    assert say(laptop, "ps:restart", "shells").code == 0
    notes = "/var/lib/shipit/apps/shells/data/notes"
    wanted = {f"v1 {kind} {what}" for kind in SHELLS for what in ("up", "term", "finished")}
    wait_for("every worker to finish its job", lambda: wanted <= set(shared_host.read(notes).splitlines()))
    wait_for("the end of v1", lambda: {row["release"] for row in asked(laptop, "ps", "shells")} == {"v2"})
    # No Python stays where bash has replaced itself.
    count = "pgrep -fc '[l]ibexec/launch .*shells' || true"
    wait_for("four launchers", lambda: shared_host.sh(count).out.strip() == "4")


def test_a_process_whose_database_is_away_comes_back_by_itself(laptop: Client, shared_host: Host) -> None:
    worker = """\
import os, sys, time
gone = os.environ["DATA_DIR"] + "/gone"
while True:
    if os.path.exists(gone): sys.exit("could not connect to the database")
    open(os.environ["DATA_DIR"] + "/up", "w").close()
    time.sleep(0.05)
"""
    shipit_yml = "processes: {worker: {count: 1, healthcheck: {settle: 1}}}\n"
    procfile = "web: python main.py --at $SOCKET\nworker: python worker.py\n"
    repo = laptop.repo("away", {**files("one", procfile=procfile, shipit_yml=shipit_yml), "worker.py": worker})
    assert repo.push().code == 0
    data = "/var/lib/shipit/apps/away/data/gone"
    shared_host.sh(f"touch {data}")

    def worker_of() -> dict[str, object]:
        return next(row for row in asked(laptop, "ps", "away") if row["process"] == "worker.1")

    wait_for("many ends", lambda: int(str(worker_of()["restarts"])) >= 6, timeout=30)
    shared_host.sh(f"rm {data}")
    # Whoever asks does not wait for the pause.
    assert say(laptop, "ps:restart", "away", "worker").code == 0
    wait_for("the worker to be back", lambda: worker_of()["state"] == "running")
    shared_host.sh(f"touch {data}")
    wait_for("a pause", lambda: "starts again in 4 s" in say(laptop, "logs", "away", "-p", "worker").out, timeout=30)
    shared_host.sh(f"rm -f {data} {data.removesuffix('gone')}up")
    wait_for("it to come back by itself", lambda: shared_host.exists(f"{data.removesuffix('gone')}up"))
    assert live(laptop, "away") == "v1"


def test_an_app_may_listen_on_ipv6_alone(laptop: Client) -> None:
    repo = laptop.repo("six", {"Procfile": "web: python3 -m http.server --bind :: $PORT\n", "index.html": "six"})
    result = repo.push()
    assert result.code == 0, str(result)
    assert "web.1 listens on every address" in result.text
    assert laptop.get("six").body == "six"


def test_gunicorn_goes_live_whatever_its_own_configuration_says_of_the_port(laptop: Client) -> None:
    app = "def app(env, start):\n    start('200 OK', [('Content-Length', '3')])\n    return [b'ok\\n']\n"
    conf = "import os\nbind = '0.0.0.0:' + os.environ['PORT']\n"
    tree = {"Procfile": "web: gunicorn app:app\n", "requirements.txt": "gunicorn==23.0.0\n", "app.py": app}
    repo = laptop.repo("gconf", {**tree, "gunicorn.conf.py": conf})
    result = repo.push()
    assert result.code == 0, str(result)
    repo.commit({"gunicorn.conf.py": conf + "reuse_port = True\n"})
    result = repo.push()
    assert result.code == 0, str(result)
    assert laptop.get("gconf").body == "ok\n"
    # Each worker gives up by itself, and gunicorn goes on.
    repo.commit({"app.py": "import sys\nsys.exit('The ledger of accounts cannot be reached.')\n"})
    failed = repo.push()
    assert failed.code == 1 and "its workers end and are started again and again" in failed.remote, str(failed)
    assert "The ledger of accounts cannot be reached." in failed.remote, str(failed)
    assert laptop.get("gconf").body == "ok\n"


def test_a_fixed_port_is_named_before_the_time_is_over(laptop: Client) -> None:
    repo = laptop.repo("fixed", {"Procfile": "web: python3 -m http.server 8899\n", "shipit.yml": SOON})
    result = repo.push()
    assert result.code == 1
    assert "web.1 listens on port 8899; requests come to $PORT" in result.text


def test_what_was_asked_for_and_cannot_be_is_said_in_our_own_words(laptop: Client) -> None:
    assert say(laptop, "apps:create", "words").code == 0
    nothing = say(laptop, "logs", "words")
    assert (nothing.code, nothing.out) == (0, "") and "words has printed nothing yet" in nothing.err
    counting = "web: python main.py --at $SOCKET\nworker: for i in 1 2 3 4 5 6; do echo line $i; done; sleep 1000\n"
    repo = laptop.repo("words", files("one", procfile=counting))
    assert repo.push().code == 0
    assert "worker has printed nothing yet" in say(laptop, "logs", "words", "-p", "worker").err
    stopped = say(laptop, "ps:restart", "words", "worker")
    assert stopped.code == 2 and "ps:scale words worker=1" in stopped.err
    assert say(laptop, "ps:scale", "words", "worker=1").code == 0
    words = ("logs", "words", "-p", "worker", "-q", "-n", "3", "--since", "1 hour ago")
    wait_for("its lines", lambda: say(laptop, *words).out.splitlines() == ["line 4", "line 5", "line 6"])
    assert "no process type 'wroker'" in say(laptop, "logs", "words", "-p", "wroker").err
    dashed = say(laptop, "run", "words", "-c", "id")
    assert dashed.code == 2 and "run words bash -c id" in dashed.err
    assert say(laptop, "ps:stop", "words").code == 0
    for words in (("ps:restart", "words"), ("ps:restart", "words", "worker")):
        refused = say(laptop, *words)
        assert refused.code == 2 and "words is stopped" in refused.err and "ps:start words" in refused.err


def test_a_process_that_dies_again_and_again_is_told_with_what_to_write(laptop: Client) -> None:
    beat = "import time\nprint('beat', flush=True)\ntime.sleep(2.3)\nopen('celerybeat-schedule', 'w')\n"
    procfile = "web: python main.py --at $SOCKET\nbeat: python beat.py\n"
    repo = laptop.repo(
        "dying", {**files("one", procfile=procfile, shipit_yml="processes: {beat: {count: 1}}\n"), "beat.py": beat}
    )
    assert repo.push().code == 0
    wait_for("status to say so", lambda: "trouble" in say(laptop, "status", "dying").out, timeout=30)
    told = say(laptop, "status", "dying")
    shown = told.out
    assert told.code == 1 and "degraded" in shown and "1 of 2 running" in shown, shown
    assert "$DATA_DIR/celerybeat-schedule" in shown, shown
    assert {row["process"]: row["state"] for row in asked(laptop, "ps", "dying")}["beat.1"] == "restarting"
    wait_for("the log to have it", lambda: "again and again" in say(laptop, "releases:output", "dying").out, timeout=30)
    # One that dies while it is checked has its push refused, with the same advice.
    repo.commit({"beat.py": beat.replace("2.3", "0.3")})
    result = repo.push()
    assert result.code == 1 and "$DATA_DIR/celerybeat-schedule" in result.text, str(result)


def test_a_slip_of_the_pen_takes_no_site_down(laptop: Client) -> None:
    repo = pushed(laptop, "slip", "one")
    repo.commit({"Procfile": "wbe: python main.py --at $SOCKET\n"})
    refused = repo.push()
    assert refused.code != 0 and "'wbe'" in refused.text and "drop-web" in refused.text
    scaled = say(laptop, "ps:scale", "slip", "web=0")
    assert scaled.code == 2 and "--force" in scaled.err
    assert laptop.get("slip").body == "one"
    meant = repo.push("-o", "drop-web")
    assert meant.code == 0 and "nothing of it takes requests" in meant.text and "live at" not in meant.text
    assert "url" not in say(laptop, "status", "slip").out
    repo.commit({"Procfile": "web: python main.py --at $SOCKET\n"})
    assert repo.push().code == 0
    assert say(laptop, "ps:scale", "slip", "web=0", "--force").code == 0
    assert "live at" not in say(laptop, "releases:output", "slip").out


def test_whoever_says_serving_has_asked(laptop: Client, shared_host: Host) -> None:
    repo = laptop.repo("never", {"Procfile": "web: false\n"})
    assert "no live release yet" in repo.push().text
    set_first = say(laptop, "config:set", "never", "A=1")
    assert set_first.code == 0 and "live at" not in set_first.text
    failed = repo.push()
    assert failed.code == 1 and "visitors get 503" in failed.text and "still serving" not in failed.text
    shown = asked(laptop, "status", "never")
    assert (shown["state"], shown["answers"]) == ("new", "503: nothing was put live yet")
    repo.commit(files("one"))
    assert repo.push().code == 0
    assert asked(laptop, "status", "never")["answers"] == "yes"
    shared_host.sh("systemctl kill -s STOP 'shipit-never-web-v*@1.service'; rm /run/shipit/never/v*/web.1.sock")
    status = say(laptop, "status", "never", "--format", "json")
    assert status.code == 1 and "no: nothing listens" in status.out


def test_a_release_that_answers_worse_is_live_with_a_warning(laptop: Client) -> None:
    repo = pushed(laptop, "hosts", "one")
    main = files("one")["main.py"].replace("self.answer(status, text)", "self.answer(400, text)")
    repo.commit({"main.py": main})
    result = repo.push()
    assert result.code == 0, str(result)
    assert "web.1 answers 400 to GET / at hosts." in result.text and "v1 answers 200" in result.text, str(result)
    assert "ALLOWED_HOSTS" in result.text and "status: 200" in result.text
    repo.commit({"mark": "three\n"})
    assert "ALLOWED_HOSTS" not in repo.push().text, "no better than what was live"


def test_an_agent_that_could_not_start_for_a_while_is_back_with_the_next_login(
    laptop: Client, shared_host: Host
) -> None:
    program = "/usr/lib/shipit/current/share/shipit/libexec/agent"
    with shared_host.without(program):
        shared_host.sh(
            "systemctl stop shipit-agent.service; "
            "for n in $(seq 40); do systemctl start shipit-agent.service || true; done; sleep 0.5"
        )
        meanwhile = say(laptop, "apps:create", "later")
        assert meanwhile.code != 0 and "Traceback" not in meanwhile.text
        assert shared_host.sh("systemctl is-active shipit-agent.socket || true").out.strip() == "failed"
    # systemd counts starts for ten seconds.
    wait_for("a login to bring it back", lambda: say(laptop, "apps:create", "later").code == 0, timeout=25)


def test_who_takes_webhooks_and_could_not_start_for_a_while_is_told_and_back_with_a_login(
    laptop: Client, shared_host: Host
) -> None:
    program, listens = "/usr/lib/shipit/current/share/shipit/libexec/look", "systemctl is-active shipit-hook.socket"
    call = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/shipit/hook.sock')"
    shared_host.sh("systemctl stop shipit-hook.service")
    with shared_host.without(program):
        wait_for(
            "systemd to give it up",
            lambda: (
                shared_host.sh(f'python3 -c "{call}" 2>&1 || true')
                and shared_host.sh(listens, check=False).out != "active\n"
            ),
        )
        assert "host: shipit-hook.socket is failed" in unwell(shared_host)
    uid = shared_host.sh("id -u shipit").out.strip()
    # A login while logind still keeps the last one's slice wakes nobody.
    wait_for("its end", lambda: shared_host.sh(f"systemctl is-active user-{uid}.slice", check=False).code, timeout=60)
    assert say(laptop, "version").code == 0
    wait_for("a login to bring it back", lambda: shared_host.sh(listens, check=False).out == "active\n")
    assert "hook" not in " ".join(unwell(shared_host))
