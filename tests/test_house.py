"""The house rules, as tests: linters, types, import direction, and what must never be written."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "receiver").rglob("*.py"))

# Who may import whom: a module imports only from its own layer or a lower one.
LAYERS = (
    ("errors", "here", "names", "paths"),
    ("caller", "records", "model", "schedule", "serving", "settings", "wire", "manifest"),
    ("system",),
    ("runtimes", "inside"),
    ("ledger", "sources"),
    ("engines", "proxy"),
    ("root", "ops"),
    ("story",),
    ("client", "gate", "cli", "setup", "entry"),
)


def layer(module: str) -> int:
    """The layer of a module below `receiver`, counted from below (`system.disk` → 2)."""
    top = module.split(".")[0]
    return next(number for number, rooms in enumerate(LAYERS) if top in rooms) if top else 0


def imported(path: Path) -> set[str]:
    """The modules below `receiver` that a file imports, wherever the import stands."""
    package = ["receiver", *path.relative_to(ROOT / "receiver").parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.add(".".join([*base, node.module] if node.module else base))
    return {name.removeprefix("receiver.") for name in found if name.startswith("receiver.")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_only_downwards(path: Path) -> None:
    if path == ROOT / "receiver/__init__.py":
        return
    own = layer(".".join(path.relative_to(ROOT / "receiver").with_suffix("").parts).removesuffix(".__init__"))
    for name in imported(path):
        assert layer(name) <= own, f"{path.name} (layer {own}) imports {name} (layer {layer(name)})"


def test_only_engines_and_setup_know_which_engine_runs_here() -> None:
    """Everybody else asks engines/all.py, so an engine is one folder and one row."""
    for path in SOURCES:
        room = path.relative_to(ROOT / "receiver").parts[0]
        if room not in ("engines", "setup"):
            inside = {name for name in imported(path) if name.startswith(("engines.systemd", "engines.embedded"))}
            assert not inside, f"{path} imports {inside}"
        # The scripts of a package ask on the machine where it is installed, which has no shipit.
        if path not in (ROOT / "receiver/engines/systemd/__init__.py", ROOT / "receiver/client/units.py"):
            assert "/run/systemd/system" not in path.read_text(), f"{path} asks by itself which engine runs here"
        if room not in ("engines", "setup"):
            told = re.search(r"hint=.*(systemctl|journalctl|supervisord)", path.read_text())
            assert not told, f"{path} tells what to type on one kind of machine: engines.hints() knows"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Wherever the import stands, in a function or for types only. A package and what is in it count as one way."""
    modules = {path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__"): path for path in SOURCES}
    needs: dict[str, set[str]] = {}
    for module, path in modules.items():
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name.replace(".", "/") for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = (node.module or "").replace(".", "/")
                names = {f"{base}/{alias.name}" for alias in node.names}
                wanted |= (names & modules.keys()) or {base}
        needs[module] = {name for name in wanted & modules.keys() if not f"{module}/".startswith(f"{name}/")}
    graphlib.TopologicalSorter(needs).prepare()


def test_only_the_sources_and_gits_own_services_speak_git() -> None:
    """Everybody else asks sources/all.py. What is admitted is a commit that no source has yet."""
    services = {"gate/service.py", "gate/hook.py", "gate/refs.py", "story/admit.py"}
    for path in SOURCES:
        where = path.relative_to(ROOT / "receiver").as_posix()
        if where.startswith("sources/") or where in services:
            continue
        assert not [name for name in imported(path) if name.startswith("sources.git")], where


def test_plans_touch_nothing() -> None:
    forbidden = {"subprocess", "socket", "shutil"}
    plans = (
        "engines/systemd/units.py",
        "engines/embedded/programs.py",
        "proxy/vhost.py",
        *(str(path.relative_to(ROOT / "receiver")) for path in (ROOT / "receiver/runtimes").glob("*.py")),
    )
    for path in (ROOT / "receiver" / name for name in plans):
        tree = ast.parse(path.read_text())
        names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert not names & forbidden, path


def test_only_the_runner_starts_programs() -> None:
    # These stand alone (started with -S, as the build's or the app's own user).
    allowed = {
        "system/run.py",
        "client/git.py",
        "inside/builder.py",
        "inside/launch.py",
        "inside/container.py",
        "inside/image.py",
        "inside/disk.py",
        "inside/machine.py",
    }
    for path in SOURCES:
        if str(path.relative_to(ROOT / "receiver")) not in allowed:
            assert not re.search(
                r"^\s*(import|from) subprocess|os\.(system|popen|posix_spawn)", path.read_text(), re.M
            ), path


def test_what_is_in_the_repository_can_be_read() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.split(b"\0")):
        path = ROOT / name.decode()
        if path.is_file():
            path.read_text(encoding="utf-8")


def test_no_shell_is_ever_asked_to_parse() -> None:
    for path in SOURCES:
        assert "shell=True" not in path.read_text(), path


# shipit is written in Python itself: where its interpreter lies, who is started with it, what its source is made of.
_OWN_PYTHON = {"paths.py", "engines/embedded/keeper.py", "client/bootstrap.py"}
_PYTHONS_WORDS = re.compile(
    r"(?<![\w.])(\.?venv|uv|pip|python|poetry|pipenv|requirements\.txt|pyproject\.toml)(?![\w-])"
)


def test_no_word_of_pythons_runtime_is_outside_of_its_folder() -> None:
    """Of a language shipit knows nothing but what its runtime says: another one is added without touching the rest."""
    for path in SOURCES:
        name = str(path.relative_to(ROOT / "receiver"))
        if name.startswith("runtimes/python/") or name in _OWN_PYTHON:
            continue
        tree = ast.parse(path.read_text())
        prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                assert not _PYTHONS_WORDS.search(node.value), f"{name}:{node.lineno}: {node.value!r}"


def test_names_are_parsed_in_one_place() -> None:
    for path in SOURCES:
        if path.name != "names.py":
            assert r"[a-z][a-z0-9-]" not in path.read_text(), f"{path}: a name's grammar outside names.py"


def test_a_decision_has_a_number_of_its_own() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == sorted(set(numbers)), numbers
    for page, number in zip(pages, numbers, strict=True):
        assert page.read_text().startswith(f"# {number}. "), page.name


def test_a_release_ends_in_one_place() -> None:
    for path in SOURCES:
        if path.relative_to(ROOT / "receiver").as_posix() != "story/verdict.py":
            assert not re.search(r"ledger\.finish\(", path.read_text()), path


def _run(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_is_content() -> None:
    _run(sys.executable, "-m", "ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    _run(sys.executable, "-m", "ruff", "format", "--check", "receiver", "tests")


def test_mypy_is_content() -> None:
    _run(sys.executable, "-m", "mypy", "receiver")


def test_shellcheck_is_content() -> None:
    if not shutil.which("shellcheck"):
        pytest.fail("shellcheck is missing; tests/run installs it")
    scripts = [
        p
        for p in (
            ROOT / "install.sh",
            *(ROOT / name for name in ("tests/run", ".ci/run", "tools/release")),
            *(ROOT / "hooks").iterdir(),
        )
        if p.exists()
    ]
    _run("shellcheck", *map(str, scripts))


def test_every_command_has_help_and_a_home() -> None:
    from receiver.cli.main import COMMANDS, LazyGroup, shipit

    assert isinstance(shipit, LazyGroup)
    import click

    for name in COMMANDS:
        command = shipit.get_command(click.Context(shipit), name)
        assert command is not None and command.help, name


def test_every_setting_of_the_server_is_explained() -> None:
    """The settings file that install.sh writes says that docs/operating.md lists them."""
    page = (ROOT / "docs/operating.md").read_text()
    assert not [name for name in Settings.__dataclass_fields__ if f"`{name}`" not in page]


def test_every_command_and_option_that_a_page_names_exists() -> None:
    """`shipit NAME … --option` and `ssh HOST NAME … --option`, on the server or on a laptop."""
    import click

    from receiver.cli.main import ALIASES, COMMANDS, shipit
    from receiver.client.commands import shipit as laptop

    seen = 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name, words in re.findall(
            r"\b(?:shipit|ssh [\w@.-]+)(?: shipit)? ([a-z-]+(?::[a-z-]+)?)\b([^`;|<$\n]*)", page.read_text()
        ):
            there = [shipit.get_command(click.Context(shipit), name), laptop.commands.get(name)]
            known = [command for command in there if command]
            assert known or name.partition(":")[0] not in {one.partition(":")[0] for one in COMMANDS | ALIASES}, name
            taken = {
                word for command in known for param in command.params for word in param.opts + param.secondary_opts
            }
            for option in re.findall(r" (--?[a-z][a-z0-9-]*)", words.partition("  ")[0]) if known else []:
                assert option in taken, f"{page.name}: {name} {option}"
                seen += 1
    assert seen > 30


def test_every_option_of_install_sh_is_explained() -> None:
    page = (ROOT / "docs/installing.md").read_text()
    rows = "".join(re.findall(r"^\| `--.*?\|", page, re.MULTILINE))
    usage = (ROOT / "install.sh").read_text().partition("TEXT")[2].partition("TEXT")[0]
    assert not [option for option in {*re.findall(r"--[a-z-]+", usage)} - {"--help"} if f"`{option}" not in rows]


def test_every_test_that_a_promise_names_exists() -> None:
    """SECURITY.md and docs/reliability.md say which test shows what: `host/test_push.py::test_a_name`."""
    named = 0
    for page in (ROOT / "SECURITY.md", ROOT / "docs/reliability.md"):
        text = page.read_text() if page.exists() else ""
        for file, name in re.findall(r"`(?:tests/)?([\w/]*test_\w+\.py)::(\w+)", text):
            there = ROOT / "tests" / file
            assert there.is_file() and re.search(rf"^def {name}\(", there.read_text(), re.MULTILINE), f"{file}::{name}"
            named += 1
    assert named > 50


def test_no_table_of_promises_has_a_row_twice() -> None:
    """Two rows about one thing would be changed one at a time. What is open to an app is named by the first column, a
    promise by what it says."""
    for page in (ROOT / "SECURITY.md", ROOT / "docs/reliability.md"):
        rows = [line.split("|")[1:-1] for line in page.read_text().splitlines() if line.startswith("| ")]
        names = [row[0].strip() if len(row[0].strip()) > 5 else row[1].strip() for row in rows]
        told = [name for name in names if name and name not in ("promise", "---")]
        assert not {name for name in told if told.count(name) > 1}, page.name
