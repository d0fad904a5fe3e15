"""Two who change the same file at once: neither's change is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from receiver import settings
from receiver.cli import apt
from receiver.names import AppName
from receiver.paths import Layout
from receiver.sources.logins import Logins
from receiver.sources.pull import access
from receiver.sources.pull.wish import Follow, Place
from receiver.sources.registry import Login

MANY = 24
HOSTS = [f"h{number}.example.org" for number in range(MANY)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path)
    found.app(AppName("blog")).repo.mkdir(parents=True)
    found.settings.parent.mkdir(parents=True)
    found.roots.parent.mkdir(parents=True, exist_ok=True)
    return found


def at_once(change: Callable[[str], object]) -> None:
    with ThreadPoolExecutor(8) as several:
        list(several.map(change, HOSTS))


def test_logins_of_registries_that_are_set_at_once_are_all_kept(tmp_path: Path) -> None:
    at_once(lambda host: Logins(tmp_path / "logins").set(host, Login("ann", host)))
    assert Logins(tmp_path / "logins").all() == {host: Login("ann", host) for host in HOSTS}


def test_passwords_for_what_an_app_follows_are_all_kept(layout: Layout) -> None:
    place = Place(layout.app(AppName("blog")))
    at_once(lambda host: access.set_password(place, host, "ann", "geheim"))
    assert sorted(place.lines(place.credentials)) == sorted(f"https://ann:geheim@{host}" for host in HOSTS)


def test_host_keys_are_all_kept(layout: Layout) -> None:
    place = Place(layout.app(AppName("blog")))
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbVbpLNMQl2mUBjDgOj0xqC3rzcmzsPGXRTVJlsDZGp"
    at_once(lambda host: access.allow_host(place, [f"{host} {key}"]))
    assert sorted(place.lines(place.known_hosts)) == sorted(f"{host} {key}" for host in HOSTS)


def test_every_change_of_what_is_followed_is_kept(layout: Layout) -> None:
    place = Place(layout.app(AppName("blog")))
    place.save(Follow("https://example.org/x"))
    at_once(lambda _: place.change(lambda now: replace(now, times=now.times + 1)))
    assert (found := place.read()) and found.times == MANY


def test_packages_that_are_allowed_at_once_are_all_allowed(layout: Layout) -> None:
    at_once(lambda host: apt.allowed(layout, [host]))
    assert sorted(settings.load(layout.settings).apt_allow.split()) == sorted(HOSTS)
