"""Keys: what a line may be, and that the file of lines is ours alone between its markers (threat rows 3-5, 9)."""

from __future__ import annotations

import base64
import itertools
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.caller import Caller, Role
from receiver.errors import Denied, Failure, HostFault, NotFound, Rejected
from receiver.gate import keys, pubkey
from receiver.gate.keys import BEGIN, END, Key, Keyring, key_line, merged
from receiver.names import AppName, KeyName
from receiver.paths import Layout


def a_key(number: int = 0, kind: str = "ssh-ed25519") -> str:
    """A public key line that nobody has the private half of."""
    parts = [kind.encode(), number.to_bytes(32, "big")]
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"{kind} {base64.b64encode(blob).decode()} somebody@somewhere\n"


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    Layout(tmp_path).home.mkdir(parents=True)
    return Keyring(Layout(tmp_path))


def add(ring: Keyring, name: str, number: int = 0, role: Role = Role.DEPLOY, apps: list[str] | None = None) -> Key:
    return ring.add(
        KeyName(name), a_key(number), role, None if apps is None else [AppName(a) for a in apps], lambda: 1.0
    )


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_the_fingerprint_is_the_one_ssh_keygen_shows(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a b", "-f", file], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", f"{file}.pub"], capture_output=True, text=True, check=True).stdout
    found = pubkey.parse(Path(f"{file}.pub").read_text())
    assert found[2] == shown.split()[1]
    assert Path(f"{file}.pub").read_text().startswith(f"{found[0]} {found[1]} ")


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", tmp_path / "key"], check=True)
    with pytest.raises(Rejected, match="2048"):
        pubkey.parse((tmp_path / "key.pub").read_text())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        a_key() + a_key(1),
        a_key().replace(" ", "\n", 1),
        f'command="sh" {a_key()}',
        f"environment=A=b {a_key()}",
        f"cert-authority {a_key()}",
        f"no-pty,{a_key()}",
        a_key().replace("ssh-ed25519", "ssh-dss"),
        a_key(kind="ssh-ed25519-cert-v01@openssh.com"),
        a_key().replace("ssh-ed25519 ", "ssh-rsa "),
        "ssh-ed25519 AAAA",
        "ssh-ed25519 " + a_key().split()[1][:-8],
        "ssh-ed25519 " + a_key().split()[1] + "AAAA",
        "ssh-ed25519 !" + a_key().split()[1],
        "ssh-ed25519 " + "A" * 20000,
        a_key() + "\x00",
        a_key().strip() + "\r" + a_key(1),
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
        "x" * 20000,
    ],
)
def test_what_is_not_one_plain_key_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        pubkey.parse(text)


@given(st.text(max_size=200))
def test_no_random_text_is_a_key(text: str) -> None:
    with pytest.raises(Rejected):
        pubkey.parse("ssh-ed25519 " + text)


def test_one_key_has_one_spelling() -> None:
    kind, blob, print_ = pubkey.parse(a_key())
    assert pubkey.parse(f"  {kind}\t{blob}   other comment\r\n") == (kind, blob, print_)


def test_a_line_forces_the_gateway_and_forbids_the_rest(ring: Keyring) -> None:
    key = add(ring, "alice")
    line = key_line(key)
    assert (
        line == f'restrict,pty,command="{keys.COMMAND} alice {key.fingerprint}" {" ".join(a_key().split()[:2])} alice'
    )


def test_added_keys_are_found_again(ring: Keyring) -> None:
    key = add(ring, "alice", 1, Role.VIEW, ["blog"])
    assert ring.all() == [key]
    assert ring.caller("alice", key.fingerprint) == Caller("alice", key.fingerprint, Role.VIEW, (AppName("blog"),))
    with pytest.raises(Denied):
        ring.caller("bob", key.fingerprint)
    with pytest.raises(Denied):
        ring.caller("", "")


def test_a_name_that_another_key_has_now_lets_the_old_one_do_nothing(ring: Keyring) -> None:
    old = add(ring, "alice", 1)
    ring.remove("alice")
    new = add(ring, "alice", 2, Role.ADMIN)
    with pytest.raises(Denied):
        ring.caller("alice", old.fingerprint)
    assert ring.caller("alice", new.fingerprint).role is Role.ADMIN


def test_a_name_and_a_key_are_taken_once(ring: Keyring) -> None:
    add(ring, "alice", 1)
    with pytest.raises(Rejected, match="named alice"):
        add(ring, "alice", 2)
    with pytest.raises(Rejected, match="as alice"):
        add(ring, "bob", 1)
    assert len(ring.all()) == 1


def test_a_key_is_removed_by_name_or_fingerprint(ring: Keyring) -> None:
    add(ring, "alice", 1)
    bob = add(ring, "bob", 2)
    ring.remove("alice")
    ring.remove(bob.fingerprint)
    assert ring.all() == []
    with pytest.raises(NotFound):
        ring.remove("alice")


def test_other_peoples_lines_stay(tmp_path: Path, ring: Keyring) -> None:
    file = Layout(tmp_path).authorized_keys
    file.parent.mkdir()
    file.write_text("# mine\nssh-rsa AAAA me\n")
    add(ring, "alice", 1)
    file.write_text(file.read_text() + "ssh-rsa BBBB after\n")
    add(ring, "bob", 2)
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# mine", "ssh-rsa AAAA me"] and lines[-1] == "ssh-rsa BBBB after"
    assert lines[2] == BEGIN and lines[-2] == END and len(lines) == 7
    ring.remove("alice")
    ring.remove("bob")
    assert file.read_text() == f"# mine\nssh-rsa AAAA me\n{BEGIN}\n{END}\nssh-rsa BBBB after\n"


@pytest.mark.parametrize("text", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_damaged_markers_stop_everything(tmp_path: Path, ring: Keyring, text: str) -> None:
    file = Layout(tmp_path).authorized_keys
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(HostFault):
        add(ring, "alice")
    assert file.read_text() == text and ring.all() == []


@given(st.lists(st.sampled_from(["ssh-rsa A", "", "# x", "ssh-rsa B"]), max_size=6), st.integers(0, 3))
def test_merging_twice_is_merging_once(foreign: list[str], count: int) -> None:
    ours = [Key(KeyName(f"k{i}"), Role.VIEW, None, "ssh-ed25519", "AAAA", "x", 1.0) for i in range(count)]
    once = merged("\n".join(foreign), ours)
    assert merged(once, ours) == once
    assert [line for line in merged(once, []).splitlines() if line not in (BEGIN, END)] == "\n".join(
        foreign
    ).splitlines()


def test_the_files_are_for_their_owner_alone(tmp_path: Path, ring: Keyring) -> None:
    add(ring, "alice")
    for file in (Layout(tmp_path).keys, Layout(tmp_path).authorized_keys):
        assert file.stat().st_mode & 0o777 == 0o600
    assert Layout(tmp_path).authorized_keys.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_what_root_adds_belongs_to_the_homes_owner(tmp_path: Path, ring: Keyring) -> None:
    os.chown(Layout(tmp_path).home, 12345, 12345)
    add(ring, "alice")
    for file in (Layout(tmp_path).keys, Layout(tmp_path).authorized_keys, Layout(tmp_path).authorized_keys.parent):
        assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12345)


@pytest.mark.parametrize(
    "raw", ["", "{}", "[]", '{"keys": [{}]}', '{"keys": [{"name": "x;y"}]}', '{"keys": 1}', "\xff"]
)
def test_a_damaged_file_lets_nobody_in_and_is_left_alone(tmp_path: Path, ring: Keyring, raw: str) -> None:
    Layout(tmp_path).keys.write_text(raw)
    with pytest.raises(HostFault):
        ring.caller("alice", "SHA256:x")
    with pytest.raises(HostFault):
        add(ring, "alice")
    assert Layout(tmp_path).keys.read_text() == raw


def _add_one(where: tuple[Path, int]) -> None:
    add(Keyring(Layout(where[0])), f"k{where[1]}", where[1])


def test_parallel_adds_lose_nothing(tmp_path: Path, ring: Keyring) -> None:
    with multiprocessing.Pool(8) as pool:
        pool.map(_add_one, [(tmp_path, i) for i in range(20)])
        # The end of the block would do it by SIGTERM, which a test does not die of (conftest.py).
        pool.close()
        pool.join()
    assert len(ring.all()) == 20
    lines = Layout(tmp_path).authorized_keys.read_text().splitlines()
    assert sum(line.startswith("restrict,") for line in lines) == 20


def test_each_role_covers_the_ones_below_it() -> None:
    for have, needed in itertools.product(Role, Role):
        order = [Role.VIEW, Role.DEPLOY, Role.ADMIN]
        assert have.covers(needed) == (order.index(have) >= order.index(needed))


def test_a_caller_is_denied_by_role_and_by_app() -> None:
    blog, shop = AppName("blog"), AppName("shop")
    who = Caller("ci", "x", Role.DEPLOY, (blog,))
    who.require(Role.DEPLOY, blog)
    who.require(Role.VIEW)
    for role, app in ((Role.DEPLOY, shop), (Role.VIEW, shop), (Role.ADMIN, blog), (Role.ADMIN, None)):
        with pytest.raises(Denied):
            who.require(role, app)
    assert who.sees(blog) and not who.sees(shop)
    assert set(who.touched) == {blog, shop}


def test_an_admin_of_some_apps_would_be_one_of_all(ring: Keyring) -> None:
    with pytest.raises(Failure):
        add(ring, "alice", role=Role.ADMIN, apps=["blog"])
