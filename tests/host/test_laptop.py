"""`shipit` on a laptop: a bare server becomes a receiver, and every command works as on the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.base import REPO, Result, run
from lab.client import Client, Repo, fetch
from lab.host import Host

from host.apps import files, pushed


def shipit(repo: Repo | Client, *words: str, check: bool = True, input: str | None = None) -> Result:
    """The client, as a wheel's `shipit` would be started, in a checkout or in the laptop's home."""
    client = repo.client if isinstance(repo, Repo) else repo
    client._trusting()  # knows the host's keys from here on
    place = repo.path if isinstance(repo, Repo) else client.home
    runtime = Path("/tmp") / f"shipit-laptop-{os.getpid()}"  # a socket's path is short
    runtime.mkdir(mode=0o700, exist_ok=True)
    env = {**client.environment, "PYTHONPATH": str(REPO), "XDG_RUNTIME_DIR": str(runtime)}
    argv = [sys.executable, "-c", "from receiver.entry import main; main()", *words]
    return run(argv, env=env, cwd=place, check=check, input=input, timeout=300)


@pytest.fixture(scope="module")
def blog(laptop: Client) -> Repo:
    return pushed(laptop, "blog")


def test_every_command_of_the_server_works_in_a_checkout_without_naming_the_app(blog: Repo) -> None:
    assert "v1" in shipit(blog, "releases").out
    assert "web.1" in shipit(blog, "ps").out
    assert shipit(blog, "--app", "nosuch", "status", check=False).code != 0
    refused = shipit(blog, "status", "--frobnicate", check=False)
    assert refused.code == 2 and "shipit status --help" in refused.err
    other = shipit(blog, "releases", "other", check=False)
    assert other.code == 2 and "shipit --app NAME releases" in other.err


def test_words_arrive_as_they_were_typed(blog: Repo) -> None:
    values = {"J": '{"a":1,"b":"two words"}', "B": "a\\nb", "N": "two\nlines", "Q": 'it\'s "$HOME" `id` & | ;', "E": ""}
    shipit(blog, "config:set", *(f"{name}={value}" for name, value in values.items()))
    for name, value in values.items():
        assert shipit(blog, "config:get", name).out == value + "\n"
    said = shipit(
        blog, "run", "python3", "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a  b", "*", check=False
    )
    assert said.code == 7 and "['a  b', '*']" in said.out
    piped = shipit(blog, "config:set", "PIPED", "-", input="from a file\n")
    assert piped.code == 0 and shipit(blog, "config:get", "PIPED").out == "from a file\n"


def test_what_a_hint_says_can_be_typed_on_the_laptop(blog: Repo) -> None:
    assert shipit(blog, "apps:lock", "-m", "busy").code == 0
    locked = shipit(blog, "config:set", "A=1", check=False)
    hint = next(line for line in locked.err.splitlines() if "Unlock it: " in line)
    words = hint.partition("Unlock it: shipit ")[2].rstrip(")").split()
    assert shipit(blog, *words).code == 0


def test_what_lies_in_a_directory_goes_live_and_git_goes_on_as_ever(laptop: Client) -> None:
    """Committed or not; the deploy branch stays where it was pushed to, a push and a rollback work after it."""
    repo = pushed(laptop, "shop", "pushed")
    pushed_commit, objects = repo.head, repo.git("count-objects").out
    repo.write({"mark": "by hand\n", "new.txt": "new", ".gitignore": "dist/\n", "dist/a.js": "built",
                "shipit.yml": "artifact: {include: [dist/], exclude: [new.txt]}\n"})  # fmt: skip
    assert "dist/a.js" in shipit(repo, "deploy", "--list").out
    dry = shipit(repo, "deploy", "--dry-run").out
    assert f"{pushed_commit[:8]} first, with changes that are not committed" in dry and "shop on " in dry
    assert laptop.get("shop").body == "pushed"
    sent = shipit(repo, "deploy", "-m", "try it")
    assert sent.code == 0 and "v2 is live" in sent.remote, str(sent)
    assert laptop.get("shop").body == "by hand"
    assert repo.git("count-objects").out == objects, "nothing of it stays in the checkout"
    newest = shipit(repo, "releases:info", "v2").out
    assert "files" in newest and f"{pushed_commit[:8]}+changes" in newest and "try it" in newest
    assert "dist/a.js" in shipit(repo, "run", "ls", "dist/a.js").out
    assert shipit(repo, "run", "ls", "new.txt", check=False).code != 0
    refs = repo.git("ls-remote", "shipit").out
    assert refs.split("\n")[0].startswith(pushed_commit) and "deploy" not in refs
    repo.write({"mark": None})
    broken = shipit(repo, "deploy", check=False)
    assert broken.code == 1 and "v2 is still serving" in broken.remote, str(broken)
    assert shipit(repo, "rollback", "v1").code == 0 and laptop.get("shop").body == "pushed"
    repo.commit({"mark": "pushed again\n"})
    assert repo.push().code == 0 and laptop.get("shop").body == "pushed again"
    repo.write({"Procfile": "wbe: python main.py --at $SOCKET\n"})
    shipit(repo, "pack")
    for what in ((), (f"dist/{next((repo.path / 'dist').glob('*.tar.gz')).name}",)):
        slip = shipit(repo, "deploy", *what, check=False)
        assert slip.code != 0 and "'wbe'" in slip.text and "--drop-web" in slip.text, str(slip)
    assert laptop.get("shop").body == "pushed again"
    meant = shipit(repo, "deploy", "--drop-web")
    assert "nothing of it takes requests" in meant.text, str(meant)


def test_a_directory_that_git_does_not_know_is_shipped_too(laptop: Client) -> None:
    repo = laptop.repo("plain")
    repo.write(files("no git"))
    url = repo.url
    for path in sorted((repo.path / ".git").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (repo.path / ".git").rmdir()
    sent = shipit(repo, "--remote", url, "deploy")
    assert sent.code == 0 and laptop.get("plain").body == "no git", str(sent)


def test_without_a_server_it_says_how_to_name_one(laptop: Client) -> None:
    lost = shipit(laptop, "releases", check=False)
    assert lost.code != 0 and "git remote add prod shipit@HOST:APP" in lost.err


@pytest.mark.slow
def test_a_bare_server_is_a_receiver_after_one_command(bare_host: Host, client_of: Callable[..., Client]) -> None:
    laptop = client_of(bare_host, "laptop", admin=True)
    bare_host.sh("apt-get -q update && apt-get -q -y --no-install-recommends install openssh-server")
    bare_host.sh("systemctl enable --now ssh && mkdir -p -m 700 /root/.ssh")
    bare_host.write("/root/.ssh/authorized_keys", laptop.public_key + "\n")
    laptop.trust()
    repo = laptop.repo("blog", files("hello"))
    repo.git("remote", "remove", "shipit")
    added = shipit(repo, "server:add", f"root@{bare_host.ip}", "--domain", "apps.example")
    assert f"Added the remote prod: shipit@{bare_host.ip}:blog" in added.out, added
    assert bare_host.sh("ls -d /var/tmp/shipit-install.*", check=False).out == "", "nothing of it is left there"
    assert repo.git("push", "prod", "HEAD:main").code == 0
    assert "hello" in fetch(bare_host.ip, headers={"Host": "blog.apps.example"}).body
    again = shipit(repo, "server:upgrade", f"root@{bare_host.ip}")
    assert "is built already" in again.out
    nothing = shipit(repo, "server:rollback", f"root@{bare_host.ip}", check=False)
    assert nothing.code != 0 and "No other version is kept" in nothing.err
