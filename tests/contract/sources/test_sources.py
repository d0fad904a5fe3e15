"""What every source promises, asked of each of them on one server, from outside: git, an archive, rsync, a pull, and a toy."""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import pytest
from host.apps import MAIN, asked, branch_at_server, live, newest, say, unwell
from host.wheels import wheel
from lab.base import Result
from lab.client import Client, Repo
from lab.host import Host

from contract.runtimes.samples import SERVE, deb

HERE = Path(__file__).parent
SITE = "/usr/lib/shipit/current/lib/python3*/site-packages/receiver/sources"
Files = Mapping[str, str]


def app(mark: str, procfile: str = "web: python main.py --at $SOCKET\n") -> Files:
    return {"main.py": MAIN, "mark": mark + "\n", "Procfile": procfile}


BROKEN = app("broken", "web: exit 3\n")
# Of what takes an app away from its visitors, a slip of the pen.
AWAY = app("away", "wbe: python main.py --at $SOCKET\n")


class Way(ABC):
    """How one source ships to one app."""

    kind: str

    def __init__(self, laptop: Client, name: str) -> None:
        self.laptop, self.name = laptop, name

    @abstractmethod
    def ship(self, files: Files) -> Result:
        """Send these files, and no other, to be put live."""

    def meant(self, files: Files, how: str) -> Result:
        """Send them once more, though they take the app away from its visitors; `how` is what the server has told."""
        words = re.search(r"ssh \S+@\S+ (ps:scale .*--force)", how)
        assert words, how
        assert self.laptop.ssh(words[1]).code == 0
        return self.ship(files)

    @abstractmethod
    def cut_short(self, files: Files) -> Result:
        """Begin to send them, and break off."""


class ByGit(Way):
    kind = "git"
    repo: Repo | None = None

    def ship(self, files: Files) -> Result:
        if self.repo is None:
            self.repo = self.laptop.repo(self.name, dict(files))
        else:
            self.repo.commit(dict(files))
        return self.repo.push()

    def cut_short(self, files: Files) -> Result:
        """A pack whose end is missing, as a client that is cut off leaves it."""
        old = branch_at_server(self.repo) if self.repo else "0" * 40
        line = f"{old} {'1' * 40} refs/heads/main\0 report-status\n".encode()
        sent = b"%04x%s0000PACK\0\0\0\2\0\0\0\5half" % (len(line) + 4, line)
        return self.laptop.ssh(f"git-receive-pack {self.name}", input=sent)

    def meant(self, files: Files, how: str) -> Result:
        assert self.repo and "git push -o drop-web" in how
        return self.repo.push("-o", "drop-web")


class ByArchive(Way):
    kind = "archive"
    option = ""

    def packed(self, files: Files) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, text in files.items():
                info = tarfile.TarInfo(f"{self.name}-1.0/{name}")
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        return out.getvalue()

    def ship(self, files: Files) -> Result:
        return self.laptop.ssh(f"deploy {self.name} -{self.option}", input=self.packed(files))

    def meant(self, files: Files, how: str) -> Result:
        assert "with --drop-web" in how
        self.option = " --drop-web"
        return self.ship(files)

    def cut_short(self, files: Files) -> Result:
        return self.laptop.ssh(f"git:from-archive {self.name} -", input=self.packed(files)[:-40])


class ByList(ByArchive):
    kind = "list"

    def packed(self, files: Files) -> bytes:
        return json.dumps(files).encode()

    def cut_short(self, files: Files) -> Result:
        return self.laptop.ssh(f"deploy {self.name} -", input=json.dumps(files)[:-9])


class ByRsync(Way):
    kind = "rsync"

    def ship(self, files: Files) -> Result:
        directory = self.laptop.home / f"{self.name}-files"
        directory.mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text)
        ssh = f"ssh -F {self.laptop.dir / 'config'}"
        where = f"{self.laptop.ip}:{self.name}/"
        return self.laptop.run("rsync", "-rlcz", "--delete", "-e", ssh, f"{directory}/", where, check=False)

    def cut_short(self, files: Files) -> Result:
        return self.laptop.ssh(f"rsync --server -rlcze.iLsfxCIvu --delete . {self.name}/", input=b"\x1f\0\0\0half")


class ByPull(Way):
    """From a repository of the user `up` on the same server, with the app's own key."""

    kind = "pull"
    repo: Repo | None = None

    @property
    def url(self) -> str:
        return f"up@{self.laptop.ip}:{self.name}.git"

    def publish(self, files: Files) -> None:
        if self.repo is None:
            self.repo = self.laptop.repo(self.name, dict(files), name=f"{self.name}-up")
            self.begin(say(self.laptop, "git:generate-deploy-key", self.name, check=True).out)
        else:
            self.repo.commit(dict(files))
        self.repo.git("push", "--quiet", self.url, "main", check=True)

    def begin(self, key: str) -> None:
        home = "/home/up"
        keys = shlex.quote(f"{key}{self.laptop.public_key}\n")
        self.laptop.machine.sh(
            f"id up >/dev/null 2>&1 || useradd --create-home --shell /bin/sh up; install -d -o up -m 700 {home}/.ssh; "
            f"printf %s {keys} >> {home}/.ssh/authorized_keys; chown up {home}/.ssh/authorized_keys; "
            f"su up -c 'git init --quiet --bare --initial-branch=main {home}/{self.name}.git'",
            check=True,
        )
        say(self.laptop, "git:allow-host", self.name, self.laptop.ip, check=True)

    def ship(self, files: Files) -> Result:
        self.publish(files)
        return say(self.laptop, "git:sync", self.name, self.url, "main")

    def cut_short(self, files: Files) -> Result:
        """Half of a commit is there: its files are missing."""
        self.publish(files)
        objects = f"/home/up/{self.name}.git/objects"
        self.laptop.machine.sh(f"cp -a {objects} {objects}.whole; find {objects} -type f -newer {objects}/../HEAD "
                               f"-size -2 -delete", check=True)  # fmt: skip
        cut = say(self.laptop, "git:sync", self.name)
        self.laptop.machine.sh(f"rm -r {objects}; mv {objects}.whole {objects}", check=True)
        return cut


class ByWheel(Way):
    """Of an archive, too: what it holds is a package."""

    kind = "archive"

    def packed(self, files: Files) -> bytes:
        return wheel("1.0", files["mark"].strip())

    def ship(self, files: Files) -> Result:
        return self.laptop.ssh(f"deploy {self.name} -", input=self.packed(files))

    def cut_short(self, files: Files) -> Result:
        return self.laptop.ssh(f"deploy {self.name} -", input=self.packed(files)[:-40])


class ByDeb(ByWheel):
    def packed(self, files: Files) -> bytes:
        mark = files["mark"].strip()
        serve = SERVE.replace("open('mark', 'rb').read()", repr(mark.encode()))
        return deb(serve="raise SystemExit(3)\n" if mark == "broken" else serve).encode()


WAYS: list[type[Way]] = [ByGit, ByArchive, ByRsync, ByPull, ByList, ByWheel, ByDeb]


@pytest.fixture(scope="module")
def server(shared_host: Host) -> Host:
    """It knows the toy, too: one more file and one more row."""
    shared_host.write("/tmp/toy.py", (HERE / "toy.py").read_text())
    row = 's/^ALL: .*= {/&"list": "receiver.sources.toy:ListSource", /'
    shared_host.sh(
        f"cp /tmp/toy.py {SITE}/ && sed -i {shlex.quote(row)} {SITE}/all.py && systemctl stop shipit-gateway",
        check=True,
    )
    return shared_host


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(server: Host, laptop: Client, request: pytest.FixtureRequest) -> Way:
    """An app of its own, whose first release came in by this way."""
    name = f"{request.param.__name__.lower()}-{abs(hash(request.node.name)) % 10**6}"
    say(laptop, "apps:create", name, check=True)
    made: Way = request.param(laptop, name)
    first = made.ship(app("one"))
    assert first.code == 0, str(first)
    return made


def test_what_is_shipped_is_live_and_says_where_it_came_from(way: Way, laptop: Client) -> None:
    assert laptop.get(way.name).body.strip() == "one"
    release = newest(laptop, way.name)
    assert (release["release"], release["status"], release["source"]) == ("v1", "live", way.kind)
    assert way.ship(app("two")).code == 0
    assert laptop.get(way.name).body.strip() == "two"
    # A way of shipping all of it: what is no longer sent is gone.
    assert say(laptop, "rollback", way.name).code == 0
    assert laptop.get(way.name).body.strip() == "one"


def test_what_does_not_start_or_is_cut_off_leaves_the_old_one_and_the_next_goes_live(
    way: Way, server: Host, laptop: Client
) -> None:
    assert way.ship(BROKEN).code != 0
    assert laptop.get(way.name).body.strip() == "one"
    before = live(laptop, way.name)
    cut = way.cut_short(app("cut"))
    assert cut.code != 0 and "Traceback" not in cut.out + cut.err, str(cut)
    assert live(laptop, way.name) == before and laptop.get(way.name).body.strip() == "one"
    if not isinstance(way, ByWheel):  # whose processes are those of the package
        away = way.ship(AWAY)
        assert away.code != 0 and "'wbe'" in away.out + away.err and "Meant so" in away.out + away.err, str(away)
        assert live(laptop, way.name) == before and laptop.get(way.name).body.strip() == "one"
    assert way.ship(app("three")).code == 0
    assert laptop.get(way.name).body.strip() == "three"
    left = server.sh(f"ls /var/lib/shipit/apps/{way.name}/repo.git", check=True).out
    assert "received-" not in left and not [line for line in unwell(server) if line.startswith(way.name)]
    if not isinstance(way, ByWheel):
        told = way.ship(AWAY)
        meant = way.meant(AWAY, told.out + told.err)
        assert meant.code == 0 and "nothing of it takes requests" in meant.out + meant.err, str(meant)
    if isinstance(way, ByGit):
        # Back to what serves is no question, back to what does not is one.
        dropped = live(laptop, way.name)
        assert say(laptop, "rollback", way.name).code == 0 and laptop.get(way.name).body.strip() == "three"
        refused = say(laptop, "rollback", way.name, dropped)
        assert refused.code == 2 and f" rollback {way.name} {dropped} --drop-web" in refused.err, str(refused)
        assert say(laptop, "rollback", way.name, dropped, "--drop-web").code == 0


def test_it_is_built_again_and_put_live_again_from_what_is_kept(way: Way, laptop: Client) -> None:
    assert way.ship(app("two")).code == 0
    again = say(laptop, "deploy", way.name)
    assert again.code == 0 and "Building v3" in again.out, str(again)
    assert laptop.get(way.name).body.strip() == "two"
    first = say(laptop, "deploy", way.name, "v1")
    assert first.code == 0 and laptop.get(way.name).body.strip() == "one", str(first)
    assert (newest(laptop, way.name)["source"], newest(laptop, way.name)["release"]) == (way.kind, "v4")


@pytest.mark.parametrize("other", WAYS[1:], ids=lambda way: way.__name__)
def test_after_a_release_of_another_source_a_push_goes_on_where_the_last_one_was(
    server: Host, laptop: Client, other: type[Way]
) -> None:
    name = f"both-{other.__name__.lower()}"
    say(laptop, "apps:create", name, check=True)
    git, way = ByGit(laptop, name), other(laptop, name)
    assert git.ship(app("pushed")).code == 0
    assert git.repo
    pushed = branch_at_server(git.repo)
    assert way.ship(app("sent")).code == 0
    assert laptop.get(name).body.strip() == "sent" and branch_at_server(git.repo) == pushed
    # A push that fails moves nothing either.
    assert git.ship(BROKEN).code != 0
    assert laptop.get(name).body.strip() == "sent" and branch_at_server(git.repo) == pushed
    back = say(laptop, "rollback", name, "v1")
    assert back.code == 0 and laptop.get(name).body.strip() == "pushed", str(back)
    forth = say(laptop, "rollback", name, "v2")
    assert forth.code == 0 and laptop.get(name).body.strip() == "sent" and branch_at_server(git.repo) == pushed
    assert git.ship(app("pushed again")).code == 0
    assert laptop.get(name).body.strip() == "pushed again" and branch_at_server(git.repo) == git.repo.head
    rows = [(row["release"], row["source"]) for row in asked(laptop, "releases", name)]
    assert rows[0] == ("v6", "git") and rows[-2:] == [("v2", way.kind), ("v1", "git")]
    assert say(laptop, "deploy", name, pushed[:10]).code == 0
    assert laptop.get(name).body.strip() == "pushed"
    told = say(laptop, "deploy", name, "no-such-thing")
    assert told.code == 2 and "no release, branch, tag or commit" in told.err
