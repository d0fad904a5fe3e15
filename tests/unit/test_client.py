"""The laptop's side: which server and app, the words on their way, which files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.cli.main import with_app
from receiver.client import commands
from receiver.client.files import select
from receiver.client.main import LOCAL, local, options
from receiver.client.remote import Remote, find, parse
from receiver.client.words import Asked, pack
from receiver.errors import Failure, NotFound, Rejected
from receiver.gate.request import CliRequest
from receiver.gate.request import parse as requested

ROOT = Path(__file__).resolve().parents[2]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_words_arrive_exactly_and_no_shell_can_change_them(words: list[str]) -> None:
    word = pack(Asked(tuple(words), "blog", 120, True))
    assert set(word) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=:")
    assert requested(word.encode()) == CliRequest(tuple(words), "blog", 120, True, client=True)


@pytest.mark.parametrize("word", ["shipit:", "shipit:x", "shipit:e30=", "shipit:bnVsbA==", "shipit:" + "A" * 4000])
def test_what_no_client_asks_is_refused(word: str) -> None:
    with pytest.raises(Rejected):
        requested(word.encode())


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("shipit@box.example:blog", Remote("prod", "shipit@box.example", "blog")),
        ("shipit@box.example:/blog.git", Remote("prod", "shipit@box.example", "blog")),
        ("ssh://shipit@box.example:2222/blog", Remote("prod", "shipit@box.example", "blog", 2222)),
        ("box:blog", Remote("prod", "box", "blog")),
        ("shipit@[::1]:blog", Remote("prod", "shipit@::1", "blog")),
        ("https://github.com/a/b.git", None),
        ("git@github.com:a/b.git", None),
        ("-oProxyCommand=x:blog", None),
        ("@:blog", None),
        ("ssh://@box:22/blog", None),
        ("/srv/repo", None),
    ],
)
def test_a_remote_is_a_receiver_or_none(url: str, remote: Remote | None) -> None:
    assert parse("prod", url) == remote


USER, HOST = r"[^@/\s]+@", r"(?:\[[0-9a-fA-F:.]+\]|[^:/@\s\[-][^:/@\s]*)"
URL = re.compile(rf"ssh://({USER})?({HOST})(?::([0-9]{{1,5}}))?/+([^/\s]+?)(?:\.git)?/?")
SCP = re.compile(rf"([^@/:\s-][^@/:\s]*@)?({HOST}):/?([^/:\s]+?)(?:\.git)?/?")
PARTS = ["ssh://", "@", ":", "/", "[", "]", "-", ".git", "box", "::1", "2222", "app", " ", "shipit", "//"]


@given(st.lists(st.sampled_from(PARTS), max_size=9).map("".join))
def test_an_address_is_read_as_its_grammar_says(url: str) -> None:
    known = None
    if match := URL.fullmatch(url):
        user, host, port, app = match.groups()
        known = Remote("x", (user or "") + unbracketed(host), app, int(port or 0))
    elif (match := SCP.fullmatch(url)) and "://" not in url:
        user, host, app = match.groups()
        known = Remote("x", (user or "") + unbracketed(host), app)
    # What has two is nobody's, and ssh says so.
    assert url.count("@") > 1 or parse("x", url) == known


def unbracketed(host: str) -> str:
    return host[1:-1] if host.startswith("[") else host


def checkout(path: Path, **remotes: str) -> Path:
    path.mkdir(exist_ok=True)
    subprocess.run(["git", "init", "-q", path], check=True)
    for name, url in remotes.items():
        subprocess.run(["git", "-C", path, "remote", "add", name, url], check=True)
    return path


def test_the_server_is_found_by_the_git_remote(tmp_path: Path) -> None:
    one = checkout(tmp_path / "one", origin="git@github.com:a/b.git", live="shipit@box:blog")
    assert find(one) == Remote("live", "shipit@box", "blog")
    (one / "below").mkdir()
    assert find(one / "below", app="shop").app == "shop"
    two = checkout(tmp_path / "two", staging="shipit@a:blog", prod="shipit@b:blog")
    assert find(two).host == "shipit@b"
    assert find(two, "staging").host == "shipit@a"
    assert find(two, "shipit@c:other") == Remote("shipit@c:other", "shipit@c", "other")
    three = checkout(tmp_path / "three", eu="shipit@a:blog", us="shipit@b:blog")
    with pytest.raises(Rejected, match="several"):
        find(three)
    (three / ".shipit").write_text("# ours\nserver: us\napp: shop\n")
    assert find(three) == Remote("us", "shipit@b", "shop")
    with pytest.raises(NotFound):
        find(tmp_path)


def test_a_command_that_the_server_does_imports_nothing_slow(tmp_path: Path) -> None:
    """Of each of these, importing takes as long as all that the client does by itself, or longer."""
    asks = """
import os, sys
before = set(sys.modules)
def becomes(program, argv):
    print(argv[-2:][0], sorted({"typing", "dataclasses", "pathlib", "subprocess", "click", "shlex", "re", "json"} & (set(sys.modules) - before)))
    raise SystemExit(0)
os.execvp = becomes
from receiver.client.main import main
main(["releases"])
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    argv = [sys.executable, "-S", "-c", asks]
    said = subprocess.run(argv, cwd=checkout(tmp_path, prod="shipit@box:blog"), env=environment, capture_output=True)
    assert said.stdout == b"shipit@box []\n", said.stderr.decode()


def test_options_stand_before_the_command_and_the_rest_is_left_alone() -> None:
    assert options(["-r", "eu", "--app=shop", "run", "--app", "x", "-r"]) == ("eu", "shop", ["run", "--app", "x", "-r"])
    for bad in (["--nosuch", "x"], ["--app"]):
        with pytest.raises(Failure):
            options(bad)


def test_a_deploy_of_files_is_done_here_and_one_of_a_release_there(tmp_path: Path) -> None:
    assert local(["deploy"]) and local(["deploy", str(tmp_path), "--dry-run"])
    assert local(["deploy", "-m", "try it", "--format", "json"])
    assert not local(["deploy", "v7"]) and not local(["deploy", "-"]) and not local(["deploy", "--fresh"])
    assert local(["check"]) and not local(["logs", "-t"])


def test_check_and_init_work_on_a_laptop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requirements.txt").write_text("flask\n")
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    monkeypatch.chdir(tmp_path)
    assert set(LOCAL) <= set(commands.shipit.commands)
    for words in (["check"], ["init", "--dry-run"], ["init"], ["check"]):
        assert local(words) and commands.run(words, "", "") == 0, capsys.readouterr().err
    assert (tmp_path / "Procfile").read_text() == "web: gunicorn app:app\n"


@pytest.mark.parametrize("words", [["--image", "blog:7"], ["blog-1.2.0.tar.gz"]])
@pytest.mark.parametrize("option", [["--dry-run"], ["--list"], ["-m", "try it"]])
def test_an_image_or_a_file_is_not_sent_with_an_option_that_would_not_count(
    words: list[str],
    option: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(checkout(tmp_path / "app", prod="shipit@127.0.0.1:blog"))
    Path("blog-1.2.0.tar.gz").write_bytes(b"x")
    sent: list[object] = []
    for way in ("forward.forward", "send.send", "image.deploy"):
        monkeypatch.setattr(f"receiver.client.{way}", lambda *what, **more: sent.append(what))
    assert local(["deploy", *words, *option])
    assert commands.run(["deploy", *words, *option], "", "") == 2
    assert "Nothing was sent" in capsys.readouterr().err and not sent


def test_an_image_goes_to_no_other_app_than_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("receiver.client.image.engine_of", lambda image: "")
    monkeypatch.setattr("receiver.client.forward.forward", lambda words, remote, app: asked.append(words))
    monkeypatch.chdir(checkout(tmp_path / "app", prod="shipit@127.0.0.1:blog"))
    assert commands.run(["deploy", "shop", "--image", "shop:7"], "", "") == 2
    assert "shipit --app NAME" in capsys.readouterr().err and not asked
    for words, app in ([], ""), (["blog"], ""), (["shop"], "shop"):
        assert commands.run(["deploy", *words, "--image", "shop:7"], "", app) == 0
    assert [words[:2] for words in asked] == [["deploy", "blog"]] * 2 + [["deploy", "shop"]]


def test_the_app_is_put_where_the_command_takes_it() -> None:
    assert with_app(["logs", "-t"], "blog") == ["logs", "blog", "-t"]
    assert with_app(["rollback", "v7"], "blog") == ["rollback", "blog", "v7"]
    assert with_app(["rollback", "blog"], "blog") == ["rollback", "blog"]
    assert with_app(["apps:destroy", "--force", "blog"], "blog") == ["apps:destroy", "--force", "blog"]
    assert with_app(["releases", "-n", "blog"], "blog") == ["releases", "blog", "-n", "blog"]
    assert with_app(["restart"], "blog") == ["restart", "blog"]
    assert with_app(["apps:list"], "blog") == ["apps:list"]
    assert with_app(["nosuch"], "blog") == ["nosuch"]
    assert requested(b"--app blog logs -t") == CliRequest(("logs", "-t"), "blog")


def test_what_is_shipped_is_what_git_knows_and_what_the_manifest_says(tmp_path: Path) -> None:
    root = checkout(tmp_path / "app")
    files = {
        "app.py": "1", "Procfile": "web: x\n", ".gitignore": "dist/\n*.log\n", "new.py": "2", "x.log": "no",
        "dist/a/main.js": "built", "docs/big.bin": "x" * 5000, "gone.py": "",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "-C", root, "add", "app.py", "Procfile", ".gitignore", "gone.py"], check=True)
    (root / "gone.py").unlink()
    plain = select(root)
    assert plain.paths == (".gitignore", "Procfile", "app.py", "docs/big.bin", "new.py")
    assert plain.new == {"docs/big.bin", "new.py"} and not plain.ignored
    assert next(iter(plain.sizes())) == "docs/big.bin"
    (root / "shipit.yml").write_text("artifact:\n  include: [dist/]\n  exclude: ['docs/*', .gitignore]\n")
    built = select(root)
    assert built.paths == ("Procfile", "app.py", "dist/a/main.js", "new.py", "shipit.yml")
    assert built.ignored == {"dist/a/main.js"}
    (root / "shipit.yml").write_text("artifact: {tracked: false, include: [Procfile, '*.py', '!new.py']}\n")
    assert select(root).paths == ("Procfile", "app.py")
    (root / "shipit.yml").write_text("artifact: {tracked: false}\n")
    with pytest.raises(Rejected, match="nothing to ship"):
        select(root)
