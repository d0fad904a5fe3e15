"""A wheel and a Debian package that are sent become releases like any other, and artifacts of `shipit pack` are taken."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from contract.runtimes.samples import SERVE, deb
from lab import tree
from lab.base import Result, run
from lab.client import Client
from lab.host import Host

from host.apps import asked, newest, pushed, say
from host.rpms import rpm, ubuntu_deb
from host.test_laptop import shipit
from host.wheels import wheel

SLUGS = "/var/lib/shipit/apps/{}/slugs"


def send(laptop: Client, app: str, content: bytes) -> Result:
    return laptop.ssh(f"deploy {app} -", input=content)


def test_a_push_a_wheel_and_a_deb_of_one_app_and_back(shared_host: Host, laptop: Client) -> None:
    pushed(laptop, "mixed", "pushed")
    sent = send(laptop, "mixed", wheel("1.0", "by wheel", needs="itsdangerous"))
    assert sent.code == 0 and "hello-1.0-py3-none-any.whl" in sent.err, str(sent)
    assert "brings the program hello, so `web: hello`" in sent.out
    assert laptop.get("mixed").body == "by wheel"
    assert "hello-1.0-py3-none-any.whl from " in str(asked(laptop, "releases:info", "mixed", "v2"))
    package = deb(serve=SERVE.replace("open('mark', 'rb').read()", "b'by deb'"))
    sent = send(laptop, "mixed", package.encode())
    assert sent.code == 0 and "hello_1.0_all.deb" in sent.err, str(sent)
    assert "Not installed on this server, and hello_1.0_all.deb needs it: no-such-lib" in sent.out
    assert laptop.get("mixed").body == "by deb"
    compiled = shared_host.sh(f"ls {SLUGS.format('mixed')}/v3/package/usr/share/hello/__pycache__").out
    assert compiled.startswith("serve.cpython-3"), "a start does not compile what it imports"
    assert not shared_host.exists("/ran"), "a maintainer's script never runs"
    broken = send(laptop, "mixed", deb("1.1", serve="raise SystemExit(3)\n").encode())
    assert broken.code == 1 and laptop.get("mixed").body == "by deb", str(broken)
    for release, body in (("v2", "by wheel"), ("v1", "pushed"), ("v3", "by deb")):
        back = say(laptop, "rollback", "mixed", release)
        assert back.code == 0 and laptop.get("mixed").body == body, str(back)
    # A wheel once more: the same environment was kept for it.
    again = say(laptop, "deploy", "mixed", "v2")
    assert again.code == 0 and "Installing" not in again.out and laptop.get("mixed").body == "by wheel", str(again)


def test_the_next_version_of_a_wheel_fetches_nothing_and_one_that_asks_for_less_starts_anew(
    shared_host: Host, laptop: Client
) -> None:
    say(laptop, "apps:create", "wheels", check=True)
    cache = "/var/lib/shipit/apps/wheels/cache"
    first = send(laptop, "wheels", wheel("1.0", "one", needs="itsdangerous"))
    assert first.code == 0 and "itsdangerous" in first.out, str(first)
    shared_host.sh(f"runuser -u build-wheels -- touch {cache}/kept")
    again = send(laptop, "wheels", wheel("1.1", "two", needs="itsdangerous"))
    assert again.code == 0 and laptop.get("wheels").body == "two", str(again)
    assert "itsdangerous" not in again.out and "Making the environment" not in again.out, str(again)
    assert shared_host.exists(f"{cache}/kept")
    info = shared_host.sh(f"ls {SLUGS.format('wheels')}/v2/.venv/lib/python3*/site-packages").out
    assert "hello-1.1.dist-info" in info and "hello-1.0.dist-info" not in info
    less = send(laptop, "wheels", wheel("1.2", "six"))
    assert less.code == 0 and laptop.get("wheels").body == "six", str(less)
    assert "The build cache is empty" in less.out and not shared_host.exists(f"{cache}/kept"), str(less)
    found = shared_host.sh(f"ls {SLUGS.format('wheels')}/v3/.venv/lib/python3*/site-packages").out
    assert "itsdangerous" not in found
    assert say(laptop, "rollback", "wheels", "v2").code == 0 and laptop.get("wheels").body == "two"


def test_an_rpm_and_a_deb_of_ubuntu_are_releases_as_any_other_and_none_of_their_scripts_runs(
    shared_host: Host, laptop: Client, tmp_path: Path
) -> None:
    say(laptop, "apps:create", "redhat", check=True)
    sent = send(laptop, "redhat", rpm(tmp_path, serve=SERVE.replace("open('mark', 'rb').read()", "b'by rpm'")))
    assert sent.code == 0 and "hello-1.0-1.noarch.rpm" in sent.err, str(sent)
    assert "needs it: " in sent.out and "no-such-lib" in sent.out and "libnone.so.7" in sent.out
    assert laptop.get("redhat").body == "by rpm" and not shared_host.exists("/ran")
    assert shared_host.exists(f"{SLUGS.format('redhat')}/v1/package/usr/share/hello/__pycache__")
    broken = send(laptop, "redhat", rpm(tmp_path, "1.1", "raise SystemExit(3)\n", payload="w6.xzdio"))
    assert broken.code == 1 and laptop.get("redhat").body == "by rpm", str(broken)
    sent = send(laptop, "redhat", ubuntu_deb(tmp_path, serve=SERVE.replace("open('mark', 'rb').read()", "b'by zstd'")))
    assert sent.code == 0 and laptop.get("redhat").body == "by zstd", str(sent)
    assert say(laptop, "rollback", "redhat", "v1").code == 0 and laptop.get("redhat").body == "by rpm"
    found = {
        one["purl"] for one in json.loads(say(laptop, "releases:sbom", "redhat", "v1", check=True).out)["components"]
    }
    assert found == {"pkg:rpm/rpm/hello@1.0-1?arch=noarch"}, found


def test_a_wheel_in_a_pushed_tree_has_its_procfile_and_its_wheelhouse_and_the_next_one_is_only_sent(
    shared_host: Host, laptop: Client
) -> None:
    """Without a network: what it needs is in wheels/. What lies beside it stays when the next version is sent."""
    repo = laptop.repo("house", {"Procfile": "web: env MARK=1 hello\n", "requirements.txt": "other==2.0\n"})
    (repo.path / "wheels").mkdir()
    (repo.path / "hello-1.0-py3-none-any.whl").write_bytes(wheel("1.0", "one", needs="other"))
    for version in ("2.0", "3.0"):
        name = f"other-{version}-py3-none-any.whl"
        (repo.path / "wheels" / name).write_bytes(wheel(version, "", name="other", scripts=""))
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "the wheel")
    first = repo.push()
    assert first.code == 0 and laptop.get("house").body == "one", str(first)
    sent = send(laptop, "house", wheel("1.1", "two", needs="other"))
    assert sent.code == 0 and "takes the place of the one before" in sent.err, str(sent)
    assert laptop.get("house").body == "two"
    slug = SLUGS.format("house") + "/v2"
    assert shared_host.sh(f"ls -d {slug}/*.whl").out.split() == [f"{slug}/hello-1.1-py3-none-any.whl"]
    found = shared_host.sh(f"ls {slug}/.venv/lib/python3*/site-packages").out
    assert "other-2.0.dist-info" in found and "hello-1.1.dist-info" in found
    assert say(laptop, "rollback", "house").code == 0 and laptop.get("house").body == "one"


def test_what_is_packed_is_signed_sent_and_taken_where_only_signed_ones_are(shared_host: Host, laptop: Client) -> None:
    repo = pushed(laptop, "signed", "pushed")
    repo.git("tag", "v1.4.0")
    repo.write({"mark": "packed\n"})
    key = next(path for path in laptop.home.rglob("id_*") if path.suffix == "")
    made = shipit(repo, "pack", "--name", "signed", "--sign", "--key", str(key), "--format", "zip")
    assert "dist/signed-1.4.0+dirty.zip" in made.out, str(made)
    unsigned = repo.path / "dist/signed-1.4.0+dirty.zip"
    settings = shared_host.read("/etc/shipit/shipit.yml")
    shared_host.write("/etc/shipit/shipit.yml", settings + "signed_only: true\n")
    try:
        refused = send(laptop, "signed", unsigned.read_bytes())
        assert refused.code == 77 and "signed archives and packages only" in refused.err, str(refused)
        sent = shipit(repo, "deploy", "dist/signed-1.4.0+dirty.zip")
        assert "Signed by" in sent.out + sent.err and laptop.get("signed").body == "packed", str(sent)
        release = asked(laptop, "releases:info", "signed", newest(laptop, "signed")["release"])
        assert "signed 1.4.0+dirty (zip)" in str(release) and "+changes" in str(release)
        unsigned.write_bytes(unsigned.read_bytes() + b"\0")
        changed = shipit(repo, "deploy", "dist/signed-1.4.0+dirty.zip", check=False)
        assert changed.code == 77 and "not what was signed" in changed.err, str(changed)
    finally:
        shared_host.write("/etc/shipit/shipit.yml", settings)


@pytest.mark.slow
def test_a_deb_of_pack_lints_clean_installs_upgrades_and_leaves_without_shipit(bare_host: Host, tmp_path: Path) -> None:
    from unit.test_pack import needs, project

    needs("nfpm")
    root = project(tmp_path / "hello", mark="one", LICENSE="MIT\n")
    pack = "from receiver.entry import main; main()"
    made = []
    for version in ("1.0", "1.1"):
        (root / "mark").write_text(version)
        run([sys.executable, "-c", pack, "pack", "--format", "deb", "--format", "rpm", "--version", version,
             "--depends", "python3"], cwd=root, check=True)  # fmt: skip
        made.append(root / f"dist/hello-web_{version}_all.deb")
    if shutil.which("lintian"):
        said = run(["lintian", "--allow-root", "--fail-on", "error,warning", str(made[0])], check=False)
        assert said.code == 0, str(said)
    if shutil.which("rpmlint"):
        said = run(["rpmlint", str(root / "dist/hello-web-1.0-1.noarch.rpm")], check=False)
        wrong = [line for line in said.out.splitlines() if ": E: " in line and "no-signature" not in line]
        assert not wrong, str(said)
    for number, package in enumerate(made):
        bare_host.put(package, f"/tmp/{number}.deb")
    bare_host.sh("apt-get update -q && apt-get install -y -q /tmp/0.deb", check=True)
    ask = "for i in $(seq 50); do curl -sf http://127.0.0.1:8000/mark && exit; python3 -c '{}' && exit; sleep .2; done; exit 1"
    ask = ask.format('import urllib.request as u; print(u.urlopen("http://127.0.0.1:8000/mark").read().decode())')
    assert bare_host.sh(ask, check=True).out.strip() == "1.0"
    bare_host.sh("dpkg -i /tmp/1.deb", check=True)
    assert bare_host.sh(ask, check=True).out.strip() == "1.1"
    bare_host.sh("dpkg -r hello-web", check=True)
    assert bare_host.sh("systemctl is-active hello-web", check=False).out.strip() != "active"
    bare_host.sh("dpkg -P hello-web", check=True)
    left = bare_host.sh(
        "ls -d /usr/share/hello-web /etc/default/hello-web /usr/lib/systemd/system/hello-web.service", check=False
    ).out
    assert left == "", left
    assert "shipit" not in bare_host.sh("ls /usr/lib /etc").out
    # The rpm by rpm alone: what it makes is the same. (Debian's rpm knows nothing of dpkg's packages: --nodeps.)
    for number, version in enumerate(("1.0", "1.1")):
        bare_host.put(root / f"dist/hello-web-{version}-1.noarch.rpm", f"/tmp/{number}.rpm")
    bare_host.sh("apt-get install -y -q --no-install-recommends rpm", check=True)
    # Debian 12's rpm wants to be told that this is no Red Hat; that of 13 has no such option any more.
    rpm_alone = "rpm --force-debian --nodeps" if tree.SUITE == "bookworm" else "rpm --nodeps"
    bare_host.sh(f"{rpm_alone} -i /tmp/0.rpm && systemctl start hello-web", check=True)
    assert bare_host.sh(ask, check=True).out.strip() == "1.0"
    bare_host.sh(f"{rpm_alone} -U /tmp/1.rpm", check=True)
    asked_again = f'for i in $(seq 50); do [ "$({ask})" = 1.1 ] && exit; sleep .2; done; exit 1'
    bare_host.sh(asked_again, check=True)
    bare_host.sh(f"{rpm_alone} -e hello-web", check=True)
    assert bare_host.sh("systemctl is-active hello-web", check=False).out.strip() != "active"
    left = bare_host.sh("ls -d /usr/share/hello-web /usr/lib/systemd/system/hello-web.service", check=False).out
    assert left == "", left


def test_a_deb_of_pack_and_a_source_distribution_are_releases_too(
    shared_host: Host, laptop: Client, tmp_path: Path
) -> None:
    from unit.test_pack import needs, project

    needs("nfpm", "uv")
    say(laptop, "apps:create", "made", check=True)
    root = project(tmp_path / "hello", mark="by pack")
    pack = "from receiver.entry import main; main()"
    run([sys.executable, "-c", pack, "pack", "--format", "deb"], cwd=root, check=True)
    sent = send(laptop, "made", (root / "dist/hello-web_1.2.0_all.deb").read_bytes())
    assert sent.code == 0 and laptop.get("made", "/mark").body == "by pack", str(sent)
    (root / "mark").write_text("by sdist")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    run([uv, "build", "--sdist", "--quiet", "--out-dir", tmp_path / "out", root], check=True)
    sent = send(laptop, "made", next((tmp_path / "out").glob("*.tar.gz")).read_bytes())
    assert sent.code == 0 and laptop.get("made", "/mark").body == "by sdist", str(sent)
    assert say(laptop, "rollback", "made").code == 0 and laptop.get("made", "/mark").body == "by pack"
    fetched = say(laptop, "deploy", "made", "--pypi", "itsdangerous==2.2.0")
    assert fetched.code == 2 and "itsdangerous-2.2.0-py3-none-any.whl" in fetched.err + fetched.out, str(fetched)
    assert laptop.get("made", "/mark").body == "by pack"
