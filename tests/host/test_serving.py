"""How nginx serves an app on a booted host: its limits, and what its shipit.yml says of them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter

import pytest
from lab.client import Client
from lab.host import Host

from host.apps import asked, files, pushed, say, unwell

# As many as nginx's default, on two workers, would not have let in.
WEBSOCKETS = 900
APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
    elif scope["type"] == "http":
        size, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        if scope["path"] == "/slow":
            await asyncio.sleep(4)
        body = str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})
"""
FILES = {"Procfile": "web: uvicorn app:app\n", "requirements.txt": "uvicorn[standard]==0.34.0\n", "app.py": APP}


async def websockets(ip: str, host: str, count: int) -> tuple[Counter[str], list[asyncio.StreamWriter]]:
    """Open so many, and keep them: the status of each answer, and their connections."""
    open_ones: list[asyncio.StreamWriter] = []
    answers: Counter[str] = Counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(ip, 80)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        answers[head.split()[1].decode()] += 1
        open_ones.append(writer)

    for _ in range(0, count, 50):
        await asyncio.gather(*(one() for _ in range(50)))
    return answers, open_ones


@pytest.mark.slow
def test_hundreds_of_websockets_stay_open_and_an_app_cannot_use_up_anothers_connections(
    shared_host: Host, laptop: Client
) -> None:
    laptop.repo("chat", FILES).push(check=True)
    laptop.repo("small", {**FILES, "shipit.yml": "proxy: {connections: 100}\n"}).push(check=True)

    async def all_of_it() -> None:
        answers, kept = await websockets(shared_host.ip, f"chat.{laptop.domain()}", WEBSOCKETS)
        assert answers == {"101": WEBSOCKETS}
        few, others = await websockets(shared_host.ip, f"small.{laptop.domain()}", 150)
        assert few == {"101": 100, "429": 50}
        # Meanwhile others are answered.
        assert (await asyncio.to_thread(laptop.get, "chat")).status == 200
        for writer in (*kept, *others):
            writer.close()

    asyncio.run(all_of_it())


@pytest.mark.slow
def test_what_shipit_yml_says_of_serving_holds_and_a_rollback_brings_it_back(shared_host: Host, laptop: Client) -> None:
    repo = laptop.repo("report", FILES)
    repo.push(check=True)
    big = b"x" * 2 * 2**20
    assert laptop.get("report", "/slow").status == 200
    assert laptop.get("report", "/", method="POST", body=big).body == str(len(big))
    repo.commit({"shipit.yml": "proxy: {timeout: 2, body: 1M, headers: {X-Frame-Options: DENY}}\n"})
    repo.push(check=True)
    assert laptop.get("report", "/slow").status == 504
    assert laptop.get("report", "/", method="POST", body=big).status == 413
    assert laptop.get("report").headers["X-Frame-Options"] == "DENY"
    laptop.ssh("rollback", "report", check=True)
    assert laptop.get("report", "/slow").status == 200
    assert laptop.get("report", "/", method="POST", body=big).body == str(len(big))


def test_in_maintenance_visitors_see_a_page_and_deploys_go_on_behind_it(shared_host: Host, laptop: Client) -> None:
    repo = laptop.repo("upkeep", files("one"))
    assert repo.push().code == 0
    words = ("maintenance:enable", "upkeep", "--message", "Back at <14:00>.")
    assert "maintenance:disable upkeep" in say(laptop, *words, check=True).out
    answer = laptop.get("upkeep")
    assert answer.status == 503 and "Back at &lt;14:00&gt;." in answer.body and answer.headers["Retry-After"] == "60"
    shown = asked(laptop, "status", "upkeep")
    assert shown["state"] == "maintenance" and shown["maintenance"].endswith("Back at <14:00>.")
    assert asked(laptop, "apps:list")[-1]["state"] == "maintenance"
    repo.commit(files("two"))
    pushed = repo.push()
    assert pushed.code == 0 and "maintenance:disable upkeep" in pushed.remote, str(pushed)
    assert laptop.get("upkeep").status == 503
    assert say(laptop, "maintenance:off", "upkeep").code == 0
    assert laptop.get("upkeep").body == "two"
    assert asked(laptop, "status", "upkeep")["state"] == "live"
    assert unwell(shared_host) == []


def test_assets_of_the_page_that_is_still_open_are_there_after_a_push(shared_host: Host, laptop: Client) -> None:
    yml = "build: {command: mkdir -p public/assets && cp app.js public/assets/app-$(cat mark).js}\nstatic: {/assets: public/assets}\n"
    repo = laptop.repo("assets", {**files("one1", shipit_yml=yml), "app.js": "1"})
    pushed = repo.push()
    assert pushed.code == 0, str(pushed)
    answer = laptop.get("assets", "/assets/app-one1.js")
    assert (answer.status, answer.body) == (200, "1") and "Cache-Control" in answer.headers
    assert laptop.get("assets", "/assets/app-two2.js").body == "one1"
    repo.commit({"mark": "two2\n", "app.js": "2"})
    assert repo.push().code == 0
    assert (
        laptop.get("assets", "/assets/app-two2.js").body == "2"
        and laptop.get("assets", "/assets/app-one1.js").body == "1"
    )
    assert laptop.get("assets", "/assets/../main.py").body == laptop.get("assets", "/assets/%2e%2e/mark").body == "two2"
    # nginx may read them, and nothing else of the release.
    slug = "/var/lib/shipit/apps/assets/slugs/v2"
    read = [shared_host.run("runuser", "-u", "www-data", "--", "cat", f"{slug}/{name}", check=False).code == 0
            for name in ("public/assets/app-two2.js", "main.py", "shipit.yml")]  # fmt: skip
    assert read == [True, False, False]
    repo.commit({"shipit.yml": "static: {/assets: nowhere}\n"})
    failed = repo.push()
    assert failed.code != 0 and "There is no directory nowhere after the build" in failed.remote, str(failed)
    assert unwell(shared_host) == []


def test_a_password_is_asked_for_and_the_app_does_not_know_it(shared_host: Host, laptop: Client) -> None:
    assert laptop.repo("guarded", files("one")).push().code == 0
    assert laptop.ssh("auth:set guarded alice -", input="s3cret\n").code == 0
    given = {"Authorization": f"Basic {base64.b64encode(b'alice:s3cret').decode()}"}
    assert laptop.get("guarded").status == 401
    assert laptop.get("guarded", headers=given).body == "one"
    assert asked(laptop, "auth:list", "guarded")["visitors"] == ["alice"]
    kept = "/var/lib/shipit/apps/guarded/releases/passwords"
    assert shared_host.run("runuser", "-u", "app-guarded", "--", "cat", kept, check=False).code != 0
    assert shared_host.run("runuser", "-u", "nobody", "--", "cat", kept, check=False).code != 0
    assert unwell(shared_host) == []
    assert say(laptop, "auth:remove", "guarded", "alice").code == 0
    assert laptop.get("guarded").body == "one"


LINES = """
add_header X-Own "a, b";
location /status/204 { expires 1h; add_header X-More yes; }
location = /gone { return 410; }
"""


def test_an_admin_gives_an_app_lines_of_nginxs_own_language(shared_host: Host, laptop: Client) -> None:
    repo = pushed(laptop, "lines", "one")
    assert say(laptop, "nginx:set", "lines", input=LINES).ok
    assert say(laptop, "nginx:show", "lines").out.splitlines()[0] == 'add_header X-Own "a, b";'
    plain, below = laptop.get("lines"), laptop.get("lines", "/status/204")
    assert (plain.status, plain.headers["X-Own"], "X-More" in plain.headers) == (200, "a, b", False)
    assert (below.headers["X-Own"], below.headers["X-More"], below.headers["Cache-Control"]) == (
        "a, b",
        "yes",
        "max-age=3600",
    )
    assert laptop.get("lines", "/gone").status == 410
    # A push, and a file of the ledger that somebody has bent, change nothing.
    vhost = shared_host.read("/etc/nginx/shipit/lines.conf")
    for wrong in (
        "include /etc/shadow;",
        "location /a { proxy_pass http://127.0.0.1; }",
        "gzip on; } server { listen 81;",
    ):
        refused = say(laptop, "nginx:set", "lines", input=wrong)
        assert not refused.ok and "line 1: " in refused.err and "Nothing was changed." in refused.err, refused
    kept = "/var/lib/shipit/apps/lines/releases/nginx.json"
    bent = """sed -i '/"sum"/d; s/"1h"/"1h; } include x; {"/'"""
    shared_host.sh(f"cp -p {kept} /root/kept; {bent} {kept}; grep -q include {kept}")
    assert not say(laptop, "domains:add", "lines", "lines.example").ok
    assert shared_host.read("/etc/nginx/shipit/lines.conf") == vhost
    shared_host.sh(f"cp -p /root/kept {kept}")
    repo.commit({"mark": "two\n"})
    assert repo.push().ok and laptop.get("lines", "/gone").status == 410
    assert say(laptop, "nginx:unset", "lines").ok and laptop.get("lines", "/gone").status == 200
    assert not [one for one in unwell(shared_host) if one.startswith("lines:")]
