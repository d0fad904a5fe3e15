from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.engines.systemd import units
from receiver.engines.systemd.engine import SystemdEngine
from receiver.errors import HostFault, Rejected
from receiver.model import Change, Check, CheckKind, Limits, Listen, Origin, ProcessType, Release, Status
from receiver.names import AppName, TypeName, app_name, type_name
from receiver.paths import Layout, share
from receiver.schedule import schedule
from receiver.system import render

GOLDEN = Path(__file__).resolve().parent.parent / "golden/units"
BLOG, WEB, MAIL = AppName("blog"), TypeName("web"), TypeName("mail-out")
LAYOUT = Layout()
NASTY = [
    "x\nExecStartPre=+/bin/sh -c id\nUser=root", "%i %n %%", "$HOME ${PATH}", "a\\x20b \\", "; rm -rf /", "+/bin/sh",
    "!/bin/sh", "@a b", "-x", ":x", "'\"`", "\x1b[31m", "{{ 7*7 }}", "{% raw %}", "# x", "[Service]", "é\u2028",
]  # fmt: skip


def release(app: AppName = BLOG, command: str = "gunicorn app", number: int = 8) -> Release:
    web = ProcessType(WEB, command, Listen.SOCKET, Check(CheckKind.HTTP))
    mail = ProcessType(
        MAIL, command, Listen.NONE, Check(CheckKind.NOTIFY, timeout=90), drain=120, limits=Limits(256, 150, 64)
    )
    return Release(
        app=app, number=number, change=Change.DEPLOY, status=Status.STARTING, by="alice", created=0.0, slug=number,
        environment=number, release_command=command, processes=(web, mail), formation=((WEB, 2), (MAIL, 1)),
    )  # fmt: skip


def same_as_golden(name: str, text: str) -> None:
    """UPDATE_GOLDEN=1 writes what is rendered now; read the diff before committing it."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def job(**changes: object) -> list[str]:
    app = LAYOUT.app(BLOG)
    slug = app.release(8).slug
    known: dict[str, object] = {
        "app": BLOG, "user": "build-blog", "cwd": slug, "writable": (slug, app.cache), "hidden": (app.data,),
        "timeout": 1800, "limits": Limits(2048, 0, 2048), "config": None, "build": True, "owner": "shipit-agent-3.scope",
    }  # fmt: skip
    return units.job_properties(**{**known, **changes})  # type: ignore[arg-type]


def test_the_units_of_a_release_are_these() -> None:
    found = units.unit_files(release(), LAYOUT)
    assert set(found) == {"shipit-blog-web-v8@.service", "shipit-blog-mail-out-v8@.service"}
    for name, text in found.items():
        same_as_golden(name, text)


def test_a_machine_may_use_the_processor_for_it_and_qemu_has_room_beside_its_memory() -> None:
    web = ProcessType(WEB, "BOOT", Listen.SOCKET, Check(CheckKind.HTTP), limits=Limits(512, 200, 0))
    made = replace(release(), machine=True, processes=(web,), formation=((WEB, 1),))
    plain, kvm = (units.unit_files(made, LAYOUT, kvm=kvm)["shipit-blog-web-v8@.service"] for kvm in (False, True))
    lines = set(kvm.splitlines())
    assert {"SupplementaryGroups=kvm", "DevicePolicy=closed", "DeviceAllow=/dev/kvm rw", "MemoryMax=896M"} <= lines
    assert "PrivateDevices=yes" not in lines
    # Without that group systemd would start nothing.
    assert lines - set(plain.splitlines()) == {"SupplementaryGroups=kvm"}


def test_the_units_of_an_app_are_these() -> None:
    for name, text in units.app_units(AppName("my-blog")).items():
        same_as_golden(name, text)


def test_the_cages_of_jobs_are_these() -> None:
    data = LAYOUT.app(BLOG).data
    same_as_golden("job-build", "\n".join(job()) + "\n")
    run = job(
        user="app-blog", cwd=data, writable=(data,), hidden=(), timeout=0, build=False, config=data / "c", owner=None
    )
    same_as_golden("job-run", "\n".join(run) + "\n")


def test_a_process_type_scaled_to_zero_has_no_unit() -> None:
    none = replace(release(), formation=((WEB, 0), (MAIL, 1)))
    assert set(units.unit_files(none, LAYOUT)) == {"shipit-blog-mail-out-v8@.service"}


@pytest.mark.parametrize("text", NASTY)
def test_nothing_a_user_wrote_is_in_a_unit(text: str) -> None:
    ours, theirs = release(), release(command=text)
    theirs = replace(
        theirs, by=text, message=text, reason=text, runtime=text, origin=Origin(text, text, text, text, text)
    )
    assert units.unit_files(theirs, LAYOUT) == units.unit_files(ours, LAYOUT)


@pytest.mark.parametrize("text", [t for t in NASTY if not t.isprintable()])
def test_a_value_with_a_control_character_is_refused_by_every_template(text: str) -> None:
    with pytest.raises(Rejected):
        render.render("systemd/app.slice.j2", app=text, slice="s", target="t")


def test_a_template_that_names_what_is_not_there_fails() -> None:
    with pytest.raises(HostFault):
        render.render("systemd/app.slice.j2", app="blog")


APPS = st.from_regex(r"[a-z][a-z0-9]{0,4}(-[a-z0-9]{1,4}){0,3}", fullmatch=True).map(app_name)
TYPES = st.from_regex(r"[a-z][a-z0-9]{0,4}(-(v[0-9]|[a-z0-9]{1,4})){0,3}", fullmatch=True).map(type_name)
PROCESSES = st.tuples(APPS, TYPES, st.integers(1, 999), st.integers(1, 100))


@given(PROCESSES)
def test_a_unit_name_says_whose_it_is(which: tuple[AppName, TypeName, int, int]) -> None:
    parsed = units.parse_unit_name(units.unit_name(*which))
    assert parsed == units.UnitName(*which)


@given(PROCESSES, PROCESSES)
def test_no_two_processes_share_a_unit_name(
    one: tuple[AppName, TypeName, int, int], other: tuple[AppName, TypeName, int, int]
) -> None:
    assert (units.unit_name(*one) == units.unit_name(*other)) == (one == other)


def test_an_app_whose_name_begins_with_another_apps_is_not_below_it() -> None:
    a, b = units.app_slice(AppName("blog")), units.app_slice(AppName("blog-eu"))
    # systemd.slice(5): the parent of a-b.slice is a.slice.
    assert not b.startswith(a.removesuffix(".slice") + "-")
    assert units.unit_name(AppName("blog"), TypeName("eu-web"), 1, 1) != units.unit_name(
        AppName("blog-eu"), TypeName("web"), 1, 1
    )


@pytest.mark.parametrize(
    "name", ["shipit-agent.service", "shipit-blog.slice", "ssh.service", "shipit-blog-web-v0@1.service"]
)
def test_a_foreign_unit_is_no_process(name: str) -> None:
    assert units.parse_unit_name(name) is None


def score(path: Path) -> float:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "systemd-analyze(1) is missing"
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(path)], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def every_unit() -> dict[str, str]:
    """Each service that is installed, rendered or started for a while, by what it is for."""
    program = "[Service]\nExecStart=/bin/true\n"
    data = LAYOUT.app(BLOG).data
    app = {"user": "app-blog", "cwd": data, "writable": (data,), "hidden": (), "build": False, "owner": None}
    installed = (share("templates") / "systemd").glob("*.service")
    return {
        **{path.name.removesuffix(".service").rstrip("@"): path.read_text() for path in installed},
        "process": units.unit_files(release(), LAYOUT)["shipit-blog-web-v8@.service"],
        "notifying process": units.unit_files(release(), LAYOUT)["shipit-blog-mail-out-v8@.service"],
        "run by the clock": timed_unit(),
        "build": program + "\n".join(job(owner=None)),
        "release command, check": program + "\n".join(job(**app, timeout=600)),
        "one-off run": program + "\n".join(job(**app, timeout=0, limits=Limits())),
    }


def timed_unit() -> str:
    nightly = replace(release().processes[0], type=TypeName("nightly"), schedule=schedule("0 3 * * *"))
    return units.timer_files(replace(release(), processes=(nightly,)), LAYOUT)["shipit-blog-nightly-v8@t1.service"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")
def test_no_unit_is_less_tight_than_it_was(tmp_path: Path) -> None:
    """tests/golden/units/scores.json: the exposure of each unit by systemd-analyze(1), 0 is none, 10 is all of it."""
    found = {}
    for name, text in every_unit().items():
        path = tmp_path / f"shipit-{name.replace(' ', '-').replace(',', '')}@1.service"
        path.write_text(text)
        found[name] = score(path)
    golden = GOLDEN / "scores.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    known = json.loads(golden.read_text())
    assert found.keys() == known.keys(), "a unit without a golden score, or the other way round"
    # Versions of systemd weigh a little differently.
    assert {name: value for name, value in found.items() if value > known[name] + 0.1} == {}
    assert all(value <= 3.0 for name, value in known.items() if not name.startswith("shipit-")), known


def test_what_a_sandbox_leaves_off_says_why() -> None:
    for name in ("sandbox.j2", "process.service.j2", "shipit-agent.service", "shipit-gateway.service"):
        lines = (share("templates") / "systemd" / name).read_text().splitlines()
        for before, line in pairwise(lines):
            if re.fullmatch(r"# [A-Z][A-Za-z]+=\S*.*", line) and "Address" not in line:
                assert before.startswith("#"), f"{name}: {line}"


def test_what_a_boot_starts_is_on_the_disk_before_anything_counts_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start does not wait for that; the switch, which comes after boot_with, does. A missing file is written again."""
    layout = Layout(tmp_path)
    layout.units.mkdir(parents=True)
    synced: list[str] = []
    fsync = os.fsync

    def recorded(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recorded)
    SystemdEngine(layout).boot_with(BLOG, release())
    synced.clear()
    SystemdEngine(layout).boot_with(BLOG, release())
    templates = {units.unit_template(BLOG, kind, 8) for kind in (WEB, MAIL)}
    wants = f"{units.app_target(BLOG)}.wants"
    assert len(synced) == 4, "each template once, however many processes it is for"
    assert (set(synced[:2]), synced[2:]) == (templates, [layout.units.name, wants])
    for link in (layout.units / wants).iterdir():
        assert link.resolve().read_text().startswith("# Written by shipit"), link


def test_what_an_older_version_wrote_of_an_app_is_written_anew_before_a_boot_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.units.mkdir(parents=True)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("receiver.engines.systemd.engine.systemctl", lambda *words, check=True: asked.append(words))
    SystemdEngine(layout).boot_with(BLOG, release())
    assert asked == [], "nothing that systemd has read has changed"
    slice_file = layout.units / units.app_slice(BLOG)
    wanted = slice_file.read_text()
    slice_file.write_text("[Slice]\n")
    SystemdEngine(layout).boot_with(BLOG, release())
    assert (slice_file.read_text(), asked) == (wanted, [("daemon-reload",)])
