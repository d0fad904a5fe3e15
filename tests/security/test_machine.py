"""One app does not take the machine, and is led, or leads, nowhere by what it has in /run (issue 12, E33 and E36)."""

from __future__ import annotations

import json
import re

from host.apps import live, pushed, say, unwell
from lab.client import Client
from lab.host import Host

FILL = """
import os, socket
os.chdir("/run/shipit/greedy")
try:
    with open("fill", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
except OSError as error:
    print("file:", error.strerror)
for n in range(5_000):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"s{n}")
print("sockets:", n + 1)
"""
HOLD = """
import resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
held = []
for port in range(20_000, 32_000):
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", port))
        one.listen(1)
    except OSError:
        pass
    held.append(one)
print("held", flush=True)
time.sleep(600)
"""
LOOK = """
import os, resource, socket
def tried(what, act):
    try:
        print(what, act() or "done")
    except OSError as error:
        print(what, "refused")
def bus():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("/run/dbus/system_bus_socket")
tried("bus", bus)
tried("lock", lambda: open("/run/lock/mine", "w").close())
tried("shm", lambda: open("/dev/shm/mine", "w").close())
tried("foreign", lambda: open("/dev/shm/foreign").read())
print("core", resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_an_app_that_fills_its_directory_in_run_stops_nobody(laptop: Client, shared_host: Host) -> None:
    pushed(laptop, "greedy", "greedy")
    pushed(laptop, "other", "one")
    assert shared_host.sh("findmnt -no FSTYPE,OPTIONS /run/shipit").out.startswith("tmpfs")
    before = int(shared_host.sh("df --output=iused /run | tail -1").out)
    said = say(laptop, "run", "greedy", "python3", "-", input=FILL)
    assert "file: No space left on device" in said.out and "sockets: 5000" in said.out, str(said)
    assert int(shared_host.sh("df --output=iused /run | tail -1").out) < before + 1000, "they are in /run itself"
    shared_host.sh("systemd-run -q --wait true; touch /run/there-is-room && rm /run/there-is-room")
    # Others start, whether they take a socket or a port; a port is written down there as well.
    pushed(laptop, "new-socket", "new")
    pushed(laptop, "new-port", "new", procfile="web: python main.py --port $PORT\n")
    assert laptop.get("other").body == "one" and laptop.get("new-port").body == "new"
    assert say(laptop, "ps:restart", "new-port").code == 0
    assert [line for line in unwell(shared_host) if "/run/shipit has no space left" in line]
    assert say(laptop, "apps:destroy", "greedy", "--force").code == 0
    assert not unwell(shared_host)


def test_a_link_in_a_sockets_place_leads_nobody_to_a_neighbour(laptop: Client, shared_host: Host) -> None:
    pushed(laptop, "guarded", "guarded")
    pushed(laptop, "thief", "thief")
    theirs, ours = (f"/run/shipit/{app}/{live(laptop, app)}" for app in ("guarded", "thief"))
    shared_host.sh(f"ln -sfn {theirs}/web.1.sock {ours}/web.1.sock", user="app-thief")
    assert laptop.get("thief").status == 502
    shared_host.sh(f"mv {ours} {ours}.x && ln -sfn {theirs} {ours}", user="app-thief")
    answer = laptop.get("thief")
    assert answer.status in (502, 503) and "guarded" not in answer.body
    shared_host.sh(f"rm {ours} && mv {ours}.x {ours}", user="app-thief")
    assert laptop.get("guarded").body == "guarded"


def test_what_is_open_to_an_app_was_decided(laptop: Client, shared_host: Host) -> None:
    pushed(laptop, "looks", "looks")
    shared_host.sh("echo secret >/dev/shm/foreign; chmod 0644 /dev/shm/foreign")
    said = say(laptop, "run", "looks", "python3", "-", input=LOOK).out.splitlines()
    assert said == ["bus refused", "lock refused", "shm done", "foreign refused", "core (0, 0)"]
    assert not shared_host.exists("/dev/shm/mine")
    limits = shared_host.sh("systemctl show shipit-looks.slice -p MemoryMax,TasksMax").out
    assert re.search(r"MemoryMax=\d+", limits) and re.search(r"TasksMax=\d+", limits), limits
    pid = shared_host.sh("pgrep -o -u app-looks").out.strip()
    assert re.search(r"Max core file size +0 +0", shared_host.read(f"/proc/{pid}/limits"))


def test_one_app_that_holds_all_the_ports_keeps_no_other_from_starting(laptop: Client, shared_host: Host) -> None:
    pushed(laptop, "ported", "ported", procfile="web: python main.py --port $PORT\n")
    pushed(laptop, "hoarder", "hoarder")
    shared_host.write("/usr/local/lib/hold.py", HOLD)
    holding = shared_host.start("exec python3 /usr/local/lib/hold.py", user="app-hoarder")
    try:
        while "held" not in holding.so_far():
            pass
        assert say(laptop, "ps:restart", "ported").code == 0
        assert laptop.get("ported").body == "ported"
        assert any("the user app-hoarder listens on 1" in line for line in unwell(shared_host))
    finally:
        holding.kill()
    assert not any("hoarder" in line for line in unwell(shared_host))


def test_a_machine_of_an_older_version_gets_it_at_its_next_boot_and_serves_all_the_time(
    host: Host, client: Client
) -> None:
    unit = "/etc/systemd/system/run-shipit.mount"
    host.sh(f"systemctl disable -q run-shipit.mount; mv {unit} /root/")
    host.reboot()
    assert not host.sh("findmnt /run/shipit", check=False).ok
    repo = pushed(client, "kept", "one")
    # As an upgrade does it (setup/services.py).
    host.sh(f"mv /root/run-shipit.mount {unit}; systemctl daemon-reload; systemctl enable -q run-shipit.mount")
    host.sh("systemctl start run-shipit.mount; systemctl restart shipit-agent.socket shipit-gateway.socket")
    assert client.get("kept").body == "one"
    repo.commit({"mark": "two\n"})
    assert repo.push().ok and client.get("kept").body == "two"
    assert not host.sh("findmnt /run/shipit", check=False).ok
    host.reboot()
    assert host.sh("findmnt /run/shipit").ok
    assert client.get("kept").body == "two"
    repo.commit({"mark": "three\n"})
    assert repo.push().ok and client.get("kept").body == "three"
    assert json.loads(say(client, "ps", "kept", "--format", "json").out)
