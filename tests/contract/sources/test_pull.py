"""What is fetched from elsewhere: a repository that an app follows, an archive at a URL. The server is that elsewhere, too.

Each test stands alone: its repository is followed, and live with the mark `begins`.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import shlex
import tarfile
from dataclasses import dataclass

import pytest
from host.apps import MAIN, branch_at_server, live, newest, say, until_body
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

NAME = "pulled"


def app(mark: str, procfile: str = "web: python main.py --at $SOCKET\n") -> dict[str, str]:
    return {"main.py": MAIN, "mark": mark + "\n", "Procfile": procfile}


@dataclass
class Upstream:
    """A repository that belongs to the user `up` of the server and is reached by ssh with the app's deploy key."""

    host: Host
    repo: Repo

    @property
    def url(self) -> str:
        return f"up@{self.host.ip}:{self.repo.app}.git"

    def publish(self, *words: str, **files: str) -> str:
        if files:
            self.repo.commit(files)
        self.repo.git("push", "--quiet", *words, self.url, "HEAD:main", check=True)
        return self.repo.head


def made(host: Host, laptop: Client, name: str) -> Upstream:
    """An app with a deploy key that lets it in, and a repository that is empty there."""
    say(laptop, "apps:create", name, check=True)
    key = say(laptop, "git:generate-deploy-key", name, check=True).out
    assert key == say(laptop, "git:public-key", name, check=True).out and key.startswith("ssh-ed25519 ")
    keys = shlex.quote(f"{key}{laptop.public_key}\n")
    host.sh(
        "id up >/dev/null 2>&1 || useradd --create-home --shell /bin/sh up; install -d -o up -m 700 /home/up/.ssh && "
        f"printf %s {keys} >> /home/up/.ssh/authorized_keys && chown up /home/up/.ssh/authorized_keys && "
        f"su up -c 'git init --quiet --bare --initial-branch=main /home/up/{name}.git'",
        check=True,
    )
    return Upstream(host, laptop.repo(name, app("one")))


@pytest.fixture(scope="module")
def followed(shared_host: Host, laptop: Client) -> Upstream:
    upstream = made(shared_host, laptop, NAME)
    say(laptop, "git:allow-host", NAME, shared_host.ip, check=True)
    return upstream


@pytest.fixture
def upstream(followed: Upstream, laptop: Client) -> Upstream:
    """Whatever the test before has left: main goes on from here, is followed, and is live."""
    followed.repo.git("checkout", "--quiet", "-B", "main", check=True)
    followed.publish("--force", **app("begins"))
    say(laptop, "git:set", NAME, "force-push", "on", check=True)
    begun = say(
        laptop, "git:sync", NAME, followed.url, "main", "--no-verify-signatures", "--no-webhook", "--every", "off"
    )
    assert begun.code == 0 and laptop.get(NAME).body.strip() == "begins", begun
    say(laptop, "git:set", NAME, "force-push", "off", check=True)
    return followed


def report(laptop: Client, name: str = NAME) -> dict[str, str]:
    said = say(laptop, "git:report", name, "--format", "json")
    found: dict[str, str] = json.loads(said.out)
    assert said.code == (1 if found["refused"] or found["reason"] else 0), said
    return found


def test_it_goes_live_when_the_ref_has_moved_and_only_then(laptop: Client, shared_host: Host) -> None:
    name = "moves"
    upstream = made(shared_host, laptop, name)
    first = upstream.publish()
    refused = say(laptop, "git:sync", name, upstream.url)
    assert refused.code == 71 and "git:allow-host" in refused.err, refused
    assert report(laptop, name)["reason"]
    say(laptop, "git:allow-host", name, shared_host.ip, check=True)
    done = say(laptop, "git:sync", name, upstream.url, "main", "--every", "7d")
    assert done.code == 0 and laptop.get(name).body.strip() == "one", done
    release = newest(laptop, name)
    assert (release["source"], release["commit"]) == ("pull", first[:8]), release
    assert say(laptop, "git:sync", name, check=True).err.count("which is live") == 1
    assert newest(laptop, name)["release"] == release["release"]
    upstream.publish(mark="two\n")
    # By its timer, with nothing of ours resident.
    shared_host.sh(f"systemctl start shipit-look@{name}.service", check=True)
    until_body(laptop, name, "two")
    assert newest(laptop, name)["by"] == "git:sync"
    timer = shared_host.sh(
        f"systemctl is-enabled shipit-look@{name}.timer; systemctl is-active shipit-look@{name}.timer"
    )
    assert timer.out.split() == ["enabled", "active"]
    wait_for("its connection to end", lambda: not shared_host.sh("pgrep -x -u shipit ssh", check=False).out)
    assert say(laptop, "git:sync", name, "--off").code == 0
    gone = f"systemctl list-units --all --plain --no-legend 'shipit-look@{name}.timer'"
    assert shared_host.sh(gone).out == ""


def test_what_does_not_start_is_tried_once_and_a_rollback_is_not_undone(
    upstream: Upstream, laptop: Client, shared_host: Host
) -> None:
    upstream.publish(Procfile="web: exit 3\n")
    shared_host.sh("systemctl start shipit-look@pulled.service", check=True)
    wait_for("it failed", lambda: newest(laptop, NAME)["status"] == "failed")
    failed = newest(laptop, NAME)["release"]
    assert laptop.get(NAME).body.strip() == "begins" and failed in report(laptop)["refused"]
    shared_host.sh("systemctl start shipit-look@pulled.service", check=True)
    assert newest(laptop, NAME)["release"] == failed
    upstream.publish(Procfile="web: python main.py --at $SOCKET\n", mark="three\n")
    shared_host.sh("systemctl start shipit-look@pulled.service", check=True)
    until_body(laptop, NAME, "three")
    assert report(laptop)["refused"] == ""
    say(laptop, "rollback", NAME, check=True)
    shared_host.sh("systemctl start shipit-look@pulled.service", check=True)
    assert laptop.get(NAME).body.strip() == "begins"
    # Who asks for it gets it.
    assert say(laptop, "git:sync", NAME).code == 0 and laptop.get(NAME).body.strip() == "three"


def test_a_rewritten_history_is_refused_until_it_is_allowed(
    upstream: Upstream, laptop: Client, shared_host: Host
) -> None:
    before = live(laptop, NAME)
    upstream.repo.git("commit", "--quiet", "--amend", "-m", "rewritten", check=True)
    upstream.publish("--force")
    shared_host.sh("systemctl start shipit-look@pulled.service", check=True)
    assert live(laptop, NAME) == before and "rewritten" in report(laptop)["refused"]
    told = say(laptop, "git:sync", NAME)
    assert told.code == 2 and "git:set pulled force-push on" in told.err, told
    say(laptop, "git:set", NAME, "force-push", "on", check=True)
    assert say(laptop, "git:sync", NAME).code == 0 and newest(laptop, NAME)["commit"] == upstream.repo.head[:8]


def test_what_cannot_be_reached_is_told_once_and_forgotten_when_it_can(
    upstream: Upstream, laptop: Client, shared_host: Host
) -> None:
    shared_host.sh("mv /home/up/pulled.git /home/up/away.git", check=True)
    for _ in range(3):
        shared_host.sh("systemctl start shipit-look@pulled.service", check=True)
    assert "(3 times)" in report(laptop)["failing since"]
    told = shared_host.journal("-t", "shipit-look").count("could not be fetched")
    assert told == 1, told
    assert shared_host.failed_units() == []
    shared_host.sh("mv /home/up/away.git /home/up/pulled.git", check=True)
    shared_host.sh("systemctl start shipit-look@pulled.service", check=True)
    assert report(laptop)["failing since"] == ""


def test_a_push_and_a_pull_take_turns_and_the_newest_tag_is_the_one(upstream: Upstream, laptop: Client) -> None:
    pushed = laptop.repo(NAME, app("pushed"), name="elsewhere")
    assert pushed.push().ok and laptop.get(NAME).body.strip() == "pushed"
    at = branch_at_server(pushed)
    for tag in ("v1.2", "v1.10", "other"):
        upstream.repo.commit({"mark": tag + "\n"})
        upstream.repo.git("tag", "-a", "-m", tag, tag, check=True)
    upstream.repo.git("push", "--quiet", upstream.url, "--tags", check=True)
    assert say(laptop, "git:sync", NAME, upstream.url, "--tags", "v*").code == 0
    assert laptop.get(NAME).body.strip() == "v1.10" and branch_at_server(pushed) == at
    upstream.repo.git("tag", "-f", "-a", "-m", "moved", "v1.10", check=True)
    upstream.repo.git("push", "--quiet", "--force", upstream.url, "--tags", check=True)
    moved = say(laptop, "git:sync", NAME)
    assert moved.code == 2 and "was moved" in moved.err, moved


def test_a_webhook_that_is_signed_has_it_looked_at_at_once(
    upstream: Upstream, laptop: Client, shared_host: Host
) -> None:
    said = say(laptop, "git:sync", NAME, "--webhook").out
    told = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    path, key = "/" + told["webhook"].strip().split("/", 3)[3], told["secret"].strip()
    assert told["webhook"].strip().startswith(f"http://{NAME}."), told
    body = b'{"ref": "refs/heads/main"}'

    def sent(path: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return laptop.get(NAME, path, method="POST", body=body, headers=named).status

    signature = hmac.new(key.encode(), body, "sha256").hexdigest()
    assert sent(path) == 403 and sent(path, X_Hub_Signature_256="sha256=" + "0" * 64) == 403
    assert sent(path[:-1] + "x", X_Hub_Signature_256=f"sha256={signature}") == 404
    assert sent("/.shipit/hook/other/x", X_Gitea_Signature=signature) == 404
    assert laptop.get(NAME, path).status in (404, 501)
    for mark, headers in (
        ("github", {"X_Hub_Signature_256": f"sha256={signature}"}),
        ("gitea", {"X_Gitea_Signature": signature}),
        ("gitlab", {"X_Gitlab_Token": key}),
    ):
        upstream.publish(mark=f"{mark}\n")
        assert sent(path, **headers) == 202
        until_body(laptop, NAME, mark)
    assert newest(laptop, NAME)["by"] == "webhook"
    audited = [line for line in shared_host.journal("-t", "shipit").splitlines() if '"key": "webhook"' in line]
    assert len(audited) >= 2 and all('"result": 0' in line for line in audited), audited
    ran = shared_host.sh("systemctl show -P User shipit-hook.service", check=True).out
    assert ran == "shipit\n"
    assert say(laptop, "git:sync", NAME, "--no-webhook").code == 0
    assert sent(path, X_Gitlab_Token=key) != 202


def test_only_what_an_allowed_signer_signed(upstream: Upstream, laptop: Client) -> None:
    def signed(name: str) -> list[str]:
        return [
            "-c",
            "gpg.format=ssh",
            "-c",
            f"user.signingkey={laptop.home / name}",
            "commit",
            "--quiet",
            "-S",
            "--amend",
        ]

    for name in ("ann", "eve"):
        laptop.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(laptop.home / name))
    signers = f"ann@example.org {(laptop.home / 'ann.pub').read_text()}"
    assert say(laptop, "git:allow-signers", NAME, "-", input=signers).code == 0
    upstream.repo.commit({"mark": "signed\n"})
    upstream.repo.git(*signed("eve"), "-m", "by eve", check=True)
    upstream.publish("--force")
    say(laptop, "git:set", NAME, "force-push", "on", check=True)
    refused = say(laptop, "git:sync", NAME, upstream.url, "main", "--verify-signatures")
    assert refused.code == 2 and "not signed by anybody" in refused.err, refused
    upstream.repo.git(*signed("ann"), "-m", "by ann", check=True)
    upstream.publish("--force")
    taken = say(laptop, "git:sync", NAME)
    assert taken.code == 0 and "signed by ann@example.org" in taken.err and laptop.get(NAME).body.strip() == "signed"


def test_keys_and_passwords_are_shipits_alone_and_never_shown(
    upstream: Upstream, laptop: Client, shared_host: Host
) -> None:
    say(laptop, "git:auth", NAME, "git.example.org", "ann", "-", input="s3cret/word\n", check=True)
    where = f"/var/lib/shipit/apps/{NAME}/repo.git/pull"
    assert "s3cret%2Fword" in shared_host.read(f"{where}/credentials")
    for user in (f"app-{NAME}", f"build-{NAME}"):
        assert shared_host.sh(f"runuser -u {user} -- ls {where}", check=False).code != 0
    assert "s3cret" not in str(report(laptop)) + shared_host.journal()
    told = say(laptop, "git:sync", NAME, "https://ann:s3cret@git.example.org/x")
    assert told.code == 2 and "s3cret" not in told.err and "git:auth" in told.err
    for url in ("file:///etc", "ext::sh -c id", "--upload-pack=id", "http://a.b/c", "git@-oProxyCommand=id:x"):
        assert say(laptop, "git:sync", NAME, "--", url).code == 2, url


SERVER = """
import http.server, ssl, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        hops = {"/moved.tar.gz": "/app.tar.gz", "/round": "/round", "/down": "http://%s:8081/app.tar.gz" % sys.argv[1]}
        self.path = self.path.partition("?")[0]
        if self.path in hops:
            self.send_response(302)
            self.send_header("Location", hops[self.path])
            self.end_headers()
        elif self.path == "/cut.tar.gz":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(open("app.tar.gz", "rb").read()[:90])
        else:
            super().do_GET()

server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
if sys.argv[3:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_an_archive_is_fetched_by_https_or_with_its_digest(laptop: Client, shared_host: Host) -> None:
    ip, name = shared_host.ip, "fetched"
    shared_host.sh(
        f"mkdir -p /srv/www && cd /srv/www && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={ip} "
        f"-addext subjectAltName=IP:{ip} -keyout key.pem -out cert.pem 2>/dev/null && "
        "cp cert.pem /usr/local/share/ca-certificates/lab.crt && update-ca-certificates >/dev/null 2>&1",
        check=True,
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in app("fetched").items():
            info = tarfile.TarInfo(path)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    shared_host.sh("cat > /srv/www/app.tar.gz", input=packed.getvalue(), check=True)
    shared_host.write("/srv/server.py", SERVER)
    for words in (f"{ip} 8443 tls", f"{ip} 8081"):
        unit = f"www-{words.split()[1]}"
        shared_host.sh(
            f"systemd-run --quiet --unit={unit} --working-directory=/srv/www python3 /srv/server.py {words}", check=True
        )
    wait_for("both listen", lambda: shared_host.sh("ss -Hltn 'sport = :8443 or sport = :8081' | wc -l").out == "2\n")
    safe, plain = f"https://{ip}:8443", f"http://{ip}:8081"
    say(laptop, "apps:create", name, check=True)
    done = say(laptop, "deploy", name, "--url", f"{safe}/moved.tar.gz?token=s3cret", "--sha256", digest)
    assert done.code == 0 and laptop.get(name).body.strip() == "fetched" and "s3cret" not in done.out + done.err, done
    assert newest(laptop, name)["source"] == "archive"
    assert say(laptop, "git:from-archive", name, f"{plain}/app.tar.gz", "--sha256", f"sha256:{digest}").code == 0
    before = live(laptop, name)
    for url, sha256, why in (
        (f"{safe}/app.tar.gz", "0" * 64, "not the one that was asked for"),
        (f"{safe}/round", "", "redirects more than"),
        (f"{safe}/down", "", "could have been changed on the way"),
        (f"{plain}/app.tar.gz", "", "could have been changed on the way"),
        (f"{safe}/cut.tar.gz", "", "cut off"),
        (f"{safe}/none.tar.gz", "", "answers 404"),
        (f"https://{ip}:8081/app.tar.gz", "", "could not be fetched"),
        ("https://localhost:8443/app.tar.gz", "", "could not be fetched"),
        (f"{safe}/", "", "no archive"),
        ("file:///etc/passwd", "", "does not fetch"),
        ("https://a:b@c/d", "", "does not fetch"),
    ):
        refused = say(laptop, "deploy", name, "--url", url, *(["--sha256", sha256] if sha256 else []))
        assert refused.code != 0 and why in refused.err and "Traceback" not in refused.err, (url, refused)
        assert live(laptop, name) == before


def test_a_commit_waits_until_ci_says_that_it_went_well_and_a_failure_is_told_once(
    upstream: Upstream, laptop: Client, shared_host: Host
) -> None:
    """By a status at a URL (the server of the test before), then by a command; nothing of ours runs between two looks."""
    name, look = "waits", "systemctl start shipit-look@waits.service"
    say(laptop, "apps:create", name, check=True)
    key = shlex.quote(say(laptop, "git:generate-deploy-key", name, check=True).out)
    shared_host.sh(
        f"printf %s {key} >> /home/up/.ssh/authorized_keys && "
        f"su up -c 'git init --quiet --bare --initial-branch=main /home/up/{name}.git'", check=True,
    )  # fmt: skip
    say(laptop, "git:allow-host", name, shared_host.ip, check=True)
    other = Upstream(shared_host, laptop.repo(name, app("one"), name="waits-up"))

    def ci(commit: str, said: object) -> None:
        text = said if isinstance(said, str) else json.dumps(said)
        shared_host.write(f"/srv/www/status-{commit}", text)

    def said() -> dict[str, str]:
        found: dict[str, str] = json.loads(say(laptop, "git:report", name, "--format", "json").out)
        return found

    url = f"https://{shared_host.ip}:8443/status-{{commit}}?token=s3cret"
    for bad, why in (
        (url.replace("{commit}", ""), "which commit"),
        (url.replace("https", "http"), "By https"),
        ("a\nb", "one line"),
    ):
        refused = say(laptop, "git:sync", name, other.url, "main", "--wait-for", bad)
        assert refused.code == 2 and why in refused.err, refused
    first = other.publish()
    waiting = say(laptop, "git:sync", name, other.url, "main", "--every", "1h", "--wait-for", url)
    assert waiting.code == 75 and "it answers 404" in waiting.err and "s3cret" not in waiting.err, waiting
    assert "status-" in said()["waits for"] and "s3cret" not in said()["waits for"]
    assert live(laptop, name) == "" and said()["waiting since"]
    ci(first, {"state": "pending", "sha": first, "statuses": [], "total_count": 0})
    shared_host.sh(look, check=True)
    assert live(laptop, name) == "" and not said()["refused"]
    ci(first, {"state": "success", "sha": first})
    shared_host.sh(look, check=True)
    until_body(laptop, name, "one")
    assert not said()["waiting since"]
    # It fails: told once, and not asked again by itself, also when it has changed its mind.
    second = other.publish(mark="two\n")
    ci(second, [{"name": "build", "status": "success"}, {"name": "test", "status": "failed"}])
    for _ in range(3):
        shared_host.sh(look, check=True)
    assert "test: failed" in said()["refused"] and laptop.get(name).body.strip() == "one"
    assert shared_host.journal("-t", "shipit-look").count(f"{second[:8]} of refs/heads/main did not go well") == 1
    ci(second, "success\n")
    assert say(laptop, "git:sync", name).code == 0 and laptop.get(name).body.strip() == "two"
    # About another commit, or nothing that is a status: as what cannot be reached.
    third = other.publish(mark="three\n")
    for answer in ({"state": "success", "sha": first}, "<html>hello</html>", {"a": 1}):
        ci(third, answer)
        assert say(laptop, "git:sync", name).code == 71, answer
    # For too long nothing: refused.
    ci(third, {"status": "running"})
    say(laptop, "git:sync", name, "--wait-most", "60s")
    follow = "/var/lib/shipit/apps/waits/repo.git/pull/follow.json"
    shared_host.sh(
        f"python3 - <<'END'\nimport json, re\np = '{follow}'\nd = json.load(open(p))\nd.pop('sum'); d['waiting'] -= 90\n"
        "json.dump(d, open(p, 'w'))\nEND", check=True,
    )  # fmt: skip
    shared_host.sh(look, check=True)
    assert "Nothing was said of" in said()["refused"] and laptop.get(name).body.strip() == "two"
    # A command of the app's, in what is live: as the app's own user, and bounded in what it says.
    command = 'test "$(id -un)" = app-waits && test "$REF" = refs/heads/main && echo "$COMMIT looked at" && exit $CODE'
    for code, ends in (("75", 75), ("1", 2), ("0", 0)):
        done = say(laptop, "git:sync", name, "--wait-for", command.replace("$CODE", code))
        assert done.code == ends and (code == "0" or f"{third} looked at" in done.err), done
    assert laptop.get(name).body.strip() == "three"
    assert shared_host.failed_units() == []
