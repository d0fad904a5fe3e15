"""Ruby: what is an app of it, how each kind is started, and what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import FakeTree

from receiver.errors import Rejected
from receiver.manifest import Manifest
from receiver.runtimes import ruby
from receiver.runtimes.build import build_plan
from receiver.runtimes.node.runtime import Node
from receiver.runtimes.read import read_manifest
from receiver.runtimes.ruby import Ruby
from receiver.settings import Settings

SINATRA = {"app.rb": "# ours\nrequire 'sinatra'\n\nget('/') { 'hello' }\n"}
LOCKED = {"Gemfile": "gem 'sinatra'\n", "Gemfile.lock": "GEM\n  specs:\n    sinatra (3.0.5)\n"}


def read(files: dict[str, str]) -> Manifest:
    return read_manifest(FakeTree(files))


def made(files: dict[str, str]) -> list[str]:
    place = Path("/s")
    plan, _ = build_plan(read(files), FakeTree(files), slug=place, cache=place, tools=place, settings=Settings())
    return [one.name for one in plan.made]


@pytest.mark.parametrize(
    ("files", "command", "directories"),
    [
        ({**SINATRA, **LOCKED}, "bundle exec ruby app.rb -o 127.0.0.1 -p $PORT", [".ruby", ".gems"]),
        (SINATRA, "ruby app.rb -o 127.0.0.1 -p $PORT", [".ruby"]),
        ({"config.ru": "run App"}, "rackup -o 127.0.0.1 -p $PORT", [".ruby"]),
        ({**SINATRA, **LOCKED, "config.ru": "run App"}, "bundle exec rackup -o 127.0.0.1 -p $PORT", [".ruby", ".gems"]),
        ({**SINATRA, "other.rb": "require('sinatra')", "lib/a.rb": ""}, "ruby app.rb -o 127.0.0.1 -p $PORT", [".ruby"]),
    ],
)
def test_a_program_of_sinatra_and_a_config_ru_start_with_and_without_a_gemfile(
    files: dict[str, str], command: str, directories: list[str]
) -> None:
    assert read(files).processes[0].command == command and made(files) == directories


def test_what_is_no_program_of_ruby_is_not_taken_for_one() -> None:
    for files in ({"a.rb": "puts 1"}, {"a.rb": "require 'sinatra/base'"}, {"lib/app.rb": SINATRA["app.rb"]}):
        with pytest.raises(Rejected, match="no Procfile"):
            read(files)
    with pytest.raises(Rejected, match=r"no Gemfile\.lock"):
        read({**SINATRA, "Gemfile": "gem 'sinatra'\n"})
    assert dict(read({"Procfile": "web: ./x", **SINATRA}).runtimes) == {"files": ""}
    assert dict(read({"Procfile": "web: ruby app.rb", **SINATRA}).runtimes) == {"ruby": "app.rb"}


def test_a_start_that_lacks_a_package_is_answered_with_where_to_name_it() -> None:
    line = "app.rb:1:in `require': cannot load such file -- sinatra (LoadError)"
    assert "apt: [ruby-sinatra]" in Ruby().advice(line) and not Ruby().advice(
        "cannot load such file -- /a/b (LoadError)"
    )
    assert "npm install express" in Node().advice("Error: Cannot find module 'express'")
    told = Node().advice("Error [ERR_MODULE_NOT_FOUND]: Cannot find package '@scope/one' imported from /x/y.js")
    assert "npm install @scope/one" in told
    for file in ("/var/lib/x/dist/main.js", "./lib/a"):
        assert not Node().advice(f"Error: Cannot find module '{file}'")


class Counted(FakeTree):
    """Knows how many files were read."""

    reads = 0

    def read(self, path: str) -> bytes | None:
        self.reads += 1
        return super().read(path)


def test_of_many_programs_only_some_are_read() -> None:
    tree = Counted({**{f"a{number}.rb": "x" for number in range(1000)}, "server.rb": "require 'sinatra'"})
    assert ruby._sinatra(tree) == "server.rb" and tree.reads == ruby.MOST_PROGRAMS
