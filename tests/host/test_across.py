"""What releases are, whichever way they came: what differs between two, and their artifacts given back."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import tarfile

import pytest
from contract.runtimes.samples import SERVE, deb
from lab.base import run
from lab.client import Client, Repo
from lab.host import Host

from host.apps import asked, build, files, newest, say
from host.test_laptop import shipit
from host.wheels import wheel


def given(laptop: Client, *words: str, check: bool = True) -> bytes:
    """What `releases:export` and these words give, byte for byte."""
    place = laptop.home / "given"
    ssh = shlex.join(["ssh", "-F", str(laptop.dir / "config"), laptop.ip, "releases:export", *words])
    run(["sh", "-c", f"{ssh} > {shlex.quote(str(place))}"], check=check)
    return place.read_bytes()


@pytest.fixture(scope="module")
def blog(laptop: Client) -> Repo:
    """v1 and v3 pushed, v2 and v4 by config, v5 a scale."""
    repo = laptop.repo("blog", files("one", old="gone in two\n"))
    assert repo.push().code == 0
    repo.git("tag", "v1.0")
    repo.git("push", "-q", "shipit", "v1.0", check=True)
    say(laptop, "config:set", "blog", "STAYS=stays-the-same", "TURNS=before-that", check=True)
    (repo.path / "old").unlink()
    repo.commit({**files("two"), "Procfile": "web: exec python main.py --at $SOCKET\n", "new.txt": "x" * 1234})
    assert repo.push().code == 0
    say(laptop, "config:set", "blog", "TURNS=after-that", "COMES=s3cr3t-value", check=True)
    say(laptop, "ps:scale", "blog", "web=2", check=True)
    return repo


def test_what_differs_between_two_releases_is_told_and_no_value_of_a_config_var(blog: Repo, laptop: Client) -> None:
    found = asked(laptop, "releases:diff", "blog", "v2", "v5")
    assert found["files"]["added"] == {"new.txt": 1234}
    assert found["files"]["removed"] == {"old": 12}
    assert {"mark", "Procfile"} == set(found["files"]["changed"]), "also what has the same size"
    assert found["config"] == {
        "added": {"COMES": None},
        "removed": {},
        "changed": {"TURNS": {"from": None, "to": None}},
    }
    assert found["processes"]["changed"]["web"]["to"] == "exec python main.py --at $SOCKET"
    assert found["formation"]["changed"] == {"web": {"from": 1, "to": 2}}
    assert found["origin"]["from"]["kind"] == "git" and found["origin"]["from"] != found["origin"]["to"]
    back = asked(laptop, "releases:diff", "blog", "v5", "v2")
    assert back["files"]["added"] == {"old": 12} and back["config"]["removed"] == {"COMES": None}
    for words in (("v2", "v5"), ("v5", "v2"), ("v1",), ("v2", "v5", "--format", "json")):
        said = say(laptop, "releases:diff", "blog", *words, check=True)
        assert not [value for value in ("that", "s3cr3t", "stays") if value in said.out + said.err], str(said)
    table = say(laptop, "releases:diff", "blog", "v2", check=True).out
    assert "new.txt  1,234" in table and "web=1 → 2" in table and "COMES" in table, table
    assert "do not differ" in say(laptop, "releases:diff", "blog", "v5", "v5").out
    assert say(laptop, "releases:diff", "blog", "v2", "v99").code == 2


def test_a_pushed_release_is_given_back_as_pack_makes_it_and_is_a_release_again(blog: Repo, laptop: Client) -> None:
    first = given(laptop, "blog", "v2")
    assert given(laptop, "blog", "v1") == first == given(laptop, "blog", "v2"), "the same files, the same bytes"
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = archive.getnames()
    assert {f"blog-1.0/{name}" for name in ("main.py", "old", ".artifact/SHA256SUMS")} < set(names), names
    # As the client packs that commit on a laptop.
    blog.git("worktree", "add", "-q", "--detach", str(laptop.home / "at-one/blog"), "v1.0")
    made = shipit(laptop, "pack", str(laptop.home / "at-one/blog"), "--json")
    assert hashlib.sha256(first).hexdigest() == json.loads(made.out)[0]["sha256"]
    sent = laptop.ssh("deploy again -", input=first) if not laptop.ssh("apps:create again").code else None
    assert sent is not None and sent.code == 0 and laptop.get("again").body == "one", str(sent)
    assert given(laptop, "again", newest(laptop, "again")["release"]) == first, "and so it is given back once more"


def test_what_was_installed_is_a_bill_whose_differences_are_told_and_no_link_of_a_build_shows_more(
    shared_host: Host, laptop: Client
) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    shared_host.write("/var/lib/shipit/secret.json", '{"name": "secret", "version": "1"}')
    hostile = (
        'mkdir -p node_modules/x node_modules/y; echo \'{"name": "x", "version": "1"}\' > node_modules/x/package.json'
    )
    hostile += "; ln -s /var/lib/shipit/secret.json node_modules/y/package.json; ln -s / node_modules/root"
    wheels = {
        f"wheels/other-{version}-py3-none-any.whl": wheel(version, "", name="other", scripts="")
        for version in ("2.0", "3.0")
    }
    repo = laptop.repo("bill", {**files("one"), "requirements.txt": "other==2.0\n--find-links wheels\n", **wheels})
    assert repo.push().code == 0
    repo.commit({"requirements.txt": "other==3.0\n--find-links wheels\n", "shipit.yml": build(hostile)})
    assert repo.push().code == 0
    made = say(laptop, "releases:sbom", "bill", "v2", check=True).out
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made) is None
    found = {one["purl"] for one in json.loads(made)["components"]}
    assert {"pkg:pypi/other@3.0", "pkg:npm/x@1"} <= found and not [one for one in found if "secret" in one], found
    assert [one for one in found if re.fullmatch(r"pkg:generic/python@3\.\d+\.\d+", one)], found
    assert say(laptop, "releases:sbom", "bill", "v2").out == made, "the same release gives the same bill"
    # A config change shares the slug; another environment does not.
    say(laptop, "config:set", "bill", "A=1", check=True)
    assert {
        one["purl"] for one in json.loads(say(laptop, "releases:sbom", "bill", "v3", check=True).out)["components"]
    } == found
    differs = asked(laptop, "releases:diff", "bill", "v1", "v3")["dependencies"]
    assert differs["changed"] == {"pypi/other": {"from": "2.0", "to": "3.0"}} and differs["added"] == {"npm/x": "1"}
    assert "pypi/other 2.0 → 3.0" in say(laptop, "releases:diff", "bill", "v1", check=True).out
    # What is gone is told, and the rest compared.
    shared_host.sh("rm -rf /var/lib/shipit/apps/bill/slugs/v1", check=True)
    gone = say(laptop, "releases:diff", "bill", "v1", check=True)
    assert "The files of v1 are not kept any more" in gone.err and "requirements.txt" in gone.out
    refused = say(laptop, "releases:sbom", "bill", "v1")
    assert refused.code == 2 and "not kept any more" in refused.err, str(refused)
    assert not shared_host.failed_units()


def test_provenance_says_who_when_from_what_and_with_what_and_the_server_signs_it(
    blog: Repo, laptop: Client, shared_host: Host
) -> None:
    raw = say(laptop, "releases:provenance", "blog", "v3", check=True).out
    said = json.loads(raw)
    assert (said["_type"], said["predicateType"]) == (
        "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1",
    )  # fmt: skip
    artifact, commit = said["subject"]
    assert artifact["digest"]["sha256"] == hashlib.sha256(given(laptop, "blog", "v3")).hexdigest()
    head = blog.git("rev-parse", "HEAD").out.strip()
    assert commit["digest"] == {"gitCommit": head}
    built = said["predicate"]["buildDefinition"]
    by = built["externalParameters"]["requestedBy"]
    mine = laptop.run("ssh-keygen", "-l", "-f", str(laptop.key)).out.split()[1]
    assert by["key"] == mine and built["externalParameters"]["source"]["ref"] == "main", built
    assert built["resolvedDependencies"][0]["digest"] == {"gitCommit": head}
    assert built["buildType"] and said["predicate"]["runDetails"]["builder"]["id"].startswith("ssh://shipit@")
    assert asked(laptop, "releases:info", "blog", "v3")["key"] == mine
    # Of each release the list says from where its files came, whatever it changed.
    rows = {row["release"]: (row["kind"], row["id"], row["source"]) for row in asked(laptop, "releases", "blog")}
    assert rows["v4"] == ("git", head, "config") and rows["v3"] == ("git", head, "git"), rows
    # Signed by a key that whoever is shipit has, and nobody else.
    place = laptop.home / "provenance"
    place.mkdir()
    for name, option in (("s.json", []), ("s.json.sig", ["--signature"]), ("signers", ["--signer"])):
        (place / name).write_text(say(laptop, "releases:provenance", "blog", "v3", *option, check=True).out)
    assert (place / "s.json").read_text() == raw, "the same release, the same statement"
    who = (place / "signers").read_text().split()[0]
    verify = f"ssh-keygen -Y verify -f signers -I {who} -n shipit-provenance -s s.json.sig"
    run(["sh", "-c", f"cd {place} && {verify} < s.json"], check=True)
    assert run(["sh", "-c", f"cd {place} && sed s/main/other/ s.json | {verify}"], check=False).code != 0
    held = shared_host.sh("stat -c '%U %a' /var/lib/shipit/home/provenance-key", check=True).out.split()
    assert held == ["shipit", "600"], held


def test_a_package_is_given_back_as_it_was_sent(shared_host: Host, laptop: Client) -> None:
    sent = deb(serve=SERVE.replace("open('mark', 'rb').read()", "b'by deb'")).encode()
    laptop.ssh("apps:create packed")
    assert laptop.ssh("deploy packed -", input=sent).code == 0
    assert given(laptop, "packed", "v1") == sent
    with tarfile.open(fileobj=io.BytesIO(given(laptop, "packed", "v1", "--tree"))) as archive:
        assert "packed-0.0.0+v1/hello_1.0_all.deb" in archive.getnames()
    assert given(laptop, "packed", "v9", check=False) == b""
