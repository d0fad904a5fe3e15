"""receiver.proxy.nginx on a real nginx: what it changes, what it refuses, and what still serves then."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.errors import HostFault
from receiver.ledger.ledger import Ledger
from receiver.model import AppState, Change, Check, CheckKind, Listen, ProcessType
from receiver.names import AppName, Domain, TypeName
from receiver.proxy import master, nginx
from receiver.proxy.vhost import PREPARED
from receiver.root import agent

from .applied import apply, create, get, live
from .load import Load
from .site import APP, Site, local, release, until


def test_an_app_serves_once_applied_and_a_second_time_nothing_is_done(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(site)
    assert apply(site)
    assert get(site) == (200, "v1")
    # As in a fork of the agent, which has done ahead what it can.
    nginx._version.cache_clear()
    for _ in agent.imports():
        pass
    monkeypatch.setattr(nginx, "run", lambda *a, **k: pytest.fail("a program was started"))
    monkeypatch.setattr(master, "reload", lambda *a: pytest.fail("nginx was reloaded"))
    assert not apply(site)


def test_a_first_release_and_the_next_go_live_without_a_reload(site: Site) -> None:
    assert apply(site)
    assert get(site)[0] == 503
    ledger = Ledger(site.layout.app(APP))
    ledger.commit(ledger.open_release(Change.CONFIG, "alice"))
    assert not apply(site)
    assert get(site)[0] == 503
    for number in (2, 3):
        live(site, number)
        assert not apply(site)
        assert get(site) == (200, f"v{number}")


def test_every_new_connection_meets_the_new_configuration_when_apply_returns(site: Site) -> None:
    live(site)
    for count in range(5):
        create(site, domains=(Domain(f"d{count}.example.org"),))
        assert apply(site)
        assert {get(site, f"d{count}.example.org") for _ in range(20)} == {(200, "v1")}
        assert get(site, f"d{count - 1}.example.org")[0] == 404


def test_a_reload_that_another_began_is_not_taken_for_ones_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx stands at two gates, behind the files of the apps, each time that it reads its configuration."""
    live(site)
    main = site.root / "etc/nginx/nginx.conf"
    gates = [site.root / "etc/nginx" / name for name in ("read.gate", "done.gate")]
    for gate in gates:
        os.mkfifo(gate)
    main.write_text(
        main.read_text().rstrip().removesuffix("}") + "".join(f"include {gate};\n" for gate in gates) + "}\n"
    )
    monkeypatch.setattr(nginx, "validate", lambda layout: None)  # it would stand there, too

    def passes(gate: Path) -> bool:
        """Whether nginx stood at the gate; it is let through."""
        try:
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    looks = threading.Event()
    real = master._reloads
    monkeypatch.setattr(master, "_reloads", lambda which: (looks.set(), real(which))[1])
    try:
        os.kill(site.nginx_pid(), signal.SIGHUP)  # as `systemctl reload nginx` does
        until(lambda: passes(gates[0]))
        # It has read the files of before, and stands at the second gate.
        create(site, domains=(Domain("new.example.org"),))
        with ThreadPoolExecutor(1) as beside:
            applied = beside.submit(apply, site)
            assert looks.wait(60)
            until(lambda: passes(gates[1]))
            # Now it reads what was asked for meanwhile.
            until(lambda: passes(gates[0]))
            assert not wait([applied], 0.5).done
            until(lambda: passes(gates[1]))
            applied.result(20)
    finally:
        # Whatever failed: nginx can be ended.
        until(lambda: not any(passes(gate) for gate in gates))
    assert get(site, "new.example.org") == (200, "v1")


def test_another_sites_mistake_leaves_all_as_it_was(site: Site) -> None:
    live(site)
    apply(site)
    before = site.layout.app(APP).vhost.read_bytes()
    (site.layout.nginx / "broken.conf").write_text("server { listen nonsense; }\n")
    create(site, domains=(Domain("new.example.org"),))
    with pytest.raises(HostFault) as failure:
        apply(site)
    assert "broken.conf" in "".join(failure.value.details)
    assert site.layout.app(APP).vhost.read_bytes() == before
    assert get(site) == (200, "v1")
    (site.layout.nginx / "broken.conf").unlink()
    assert apply(site)
    assert get(site, "new.example.org") == (200, "v1")


def test_a_first_vhost_that_is_refused_does_not_stay(site: Site) -> None:
    (site.layout.nginx / "broken.conf").write_text("nonsense;\n")
    with pytest.raises(HostFault):
        apply(site)
    assert sorted(path.name for path in site.layout.nginx.iterdir()) == [".lock", "_server.conf", "broken.conf"]


def test_a_reload_that_the_master_refuses_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nginx -t` does not mind a port in use, the master does, and only logs it."""
    monkeypatch.setattr(master, "RELOAD_TIMEOUT", 4.0)
    live(site)
    apply(site)
    before = site.layout.app(APP).vhost.read_bytes()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        site.settings = replace(site.settings, http_port=taken.getsockname()[1])
        with pytest.raises(HostFault) as failure:
            apply(site)
    assert "(98: Address" in "".join(failure.value.details)
    assert site.layout.app(APP).vhost.read_bytes() == before
    assert get(site) == (200, "v1")


@pytest.mark.parametrize("found", [b"", b"# an older one\n"])
def test_a_crash_between_file_and_reload_is_made_good(site: Site, found: bytes) -> None:
    live(site)
    apply(site)
    # As left by a kill -9 after the rename: the new file is there, nginx never heard of it.
    site.layout.app(APP).vhost.with_suffix(".undo").write_bytes(found)
    assert apply(site)
    assert not apply(site)


def test_a_stopped_nginx_is_told_and_has_the_file_when_it_starts(site: Site) -> None:
    live(site)
    site.stop_nginx()
    with pytest.raises(HostFault, match="does not run"):
        apply(site)
    site.start_nginx()
    assert get(site) == (200, "v1")
    assert not apply(site)


def test_a_stopped_nginx_has_all_files_of_a_change_when_it_starts(site: Site) -> None:
    live(site)
    server = nginx.server_path(site.layout)
    right = server.read_bytes()
    server.write_bytes(b"# an older one\n")
    site.stop_nginx()
    with pytest.raises(HostFault, match="does not run") as told:
        apply(site)
    assert "of blog is valid" in told.value.holds
    assert server.read_bytes() == right and site.layout.app(APP).vhost.exists()
    site.start_nginx()
    assert get(site) == (200, "v1")


def test_a_removed_app_is_an_unknown_name(site: Site) -> None:
    live(site)
    apply(site)
    assert nginx.remove(site.layout, APP)
    assert get(site) == (404, "There is no app at this name.\n")
    assert not nginx.remove(site.layout, APP)


def test_an_app_that_stops_taking_requests_loses_its_vhost(site: Site) -> None:
    apply(site)
    ledger = Ledger(site.layout.app(APP))
    worker = ProcessType(TypeName("worker"), "run", Listen.NONE, Check(CheckKind.UPTIME))
    only = replace(release(1), processes=(worker,), formation=((worker.type, 1),))
    (ledger.paths.releases / "v1").mkdir()
    ledger.commit(ledger.save(only))
    assert apply(site)
    assert not site.layout.app(APP).vhost.exists()


def test_stopped_and_scaled_to_zero_answer_503_and_a_dead_process_502(site: Site) -> None:
    live(site)
    create(site, stopped=True)
    apply(site)
    assert get(site)[0] == 503
    assert "This app is stopped" in get(site, method="POST", body=b"x")[1]
    create(site)
    apply(site)
    site.terminate(1, how=signal.SIGKILL).wait()
    status, page = get(site, method="POST", body=b"x")
    assert status == 502 and "not answering" in page
    assert get(site, path="/.shipit/502.html")[0] == 404


def test_the_administrators_pages_win(site: Site) -> None:
    own = site.layout.etc / "templates/pages"
    own.mkdir(parents=True)
    (own / "502.html").write_text("ours")
    apply(site)
    assert "not running" in get(site)[1]
    (own / "503.html").write_text("closed for today")
    assert apply(site)
    assert get(site) == (503, "closed for today")


def test_a_body_of_2_mib_is_taken_and_one_of_101_is_not(site: Site) -> None:
    live(site)
    apply(site)
    assert get(site, method="POST", body=b"x" * 2**21) == (200, "v1")
    with socket.create_connection(("127.0.0.1", site.port)) as pipe:
        pipe.sendall(b"POST / HTTP/1.1\r\nHost: blog.test\r\nContent-Length: %d\r\n\r\n" % (101 * 2**20))
        assert pipe.recv(100).startswith(b"HTTP/1.1 413 ")


def test_more_and_fewer_processes_than_are_prepared_lose_no_request_on_new_connections(site: Site) -> None:
    live(site)
    apply(site)
    with Load(site.port, "blog.test", clients=8, keep=False, method="POST") as load:
        for number, web in enumerate((PREPARED + 2, PREPARED + 1, 1), start=2):
            live(site, number, web)
            assert apply(site)
            time.sleep(0.2)
    assert not load.failures and load.requests > 100
    assert set(load.answers) == {"v1", "v2", "v3", "v4"}


def test_two_apps_may_be_applied_at_the_same_moment(site: Site) -> None:
    apps = [AppName(f"app{number}") for number in range(4)]
    for app in apps:
        create(site, app)
        live(site, app=app)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda app: apply(site, app), apps))
    assert [get(site, f"{app}.test") for app in apps] == [(200, "v1")] * 4


def test_the_longest_domains_of_200_apps_fit(site: Site) -> None:
    long = ".".join(["x" * 60] * 4)
    for number in range(200):
        app = AppName(f"app{number}")
        state = AppState(app=app, created=0.0, domains=(Domain(f"a{number}.{long}"), Domain(f"*.b{number}.{long}")))
        site.layout.app(app).vhost.write_text(local(nginx.text(site.layout, site.settings, state, None)))
    live(site)
    assert apply(site)
    assert get(site) == (200, "v1")
    assert get(site, f"a199.{long}")[0] == 503


def test_an_unknown_name_is_nobodys_app(site: Site) -> None:
    live(site)
    apply(site)
    assert get(site, "evil.example.org") == (404, "There is no app at this name.\n")
    assert get(site, "127.0.0.1")[0] == 404
    status, page = get(site, "evil.example.org", "/x", headers={"Accept": "text/html,*/*"})
    assert status == 404 and "<h1>There is no app at this name</h1>" in page
