from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from trees import FakeTree

from receiver.errors import Rejected
from receiver.runtimes.base import BuildPlan, Made, Step
from receiver.runtimes.build import adding, build_plan
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings

GOLDEN = Path(__file__).resolve().parent.parent / "golden/build"
SLUG = Path("/var/lib/shipit/apps/blog/slugs/v8")
PROCFILE = {"Procfile": "web: gunicorn app:app\n"}
PYPROJECT = '[project]\nname = "blog"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["flask"]\n'
PACKAGED = PYPROJECT + '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
VIRTUAL = '[[package]]\nname = "blog"\nsource = { virtual = "." }\n'
EDITABLE = VIRTUAL.replace("virtual", "editable")
POETRY = '[metadata]\nlock-version = "2.1"\n'

PACKAGE = '{"name": "blog", "dependencies": {"ms": "2.1.3"}}'

PROJECTS: dict[str, dict[str, str | None]] = {
    "requirements": {"requirements.txt": "flask\n", ".python-version": "3.11\n"},
    "requirements-hashed": {"requirements.txt": "flask==3.1.2 \\\n  --hash=sha256:00\n"},
    "uv": {"uv.lock": VIRTUAL, "pyproject.toml": PYPROJECT},
    "uv-python": {"uv.lock": VIRTUAL, "pyproject.toml": PYPROJECT, ".python-version": "3.12\n"},
    "uv-packaged": {"uv.lock": EDITABLE, "pyproject.toml": PACKAGED},
    "poetry": {"poetry.lock": POETRY, "pyproject.toml": PYPROJECT},
    "poetry-1": {"poetry.lock": POETRY.replace("2.1", "2.0"), "pyproject.toml": PACKAGED, "src/blog/__init__.py": ""},
    "pipenv": {"Pipfile.lock": '{"_meta": {}, "default": {}}', "Pipfile": ""},
    "pyproject": {"pyproject.toml": PYPROJECT},
    "setup": {"setup.py": ""},
    "no-requirements": {"app.py": ""},
    "node-npm": {"package.json": PACKAGE, "package-lock.json": "{}"},
    "node-npm-build": {
        "package.json": PACKAGE.replace("}", '}, "scripts": {"build": "x"}', 1),
        "package-lock.json": "{}",
    },
    "node-pnpm": {"package.json": PACKAGE, "pnpm-lock.yaml": "lockfileVersion: '6.0'\n", ".nvmrc": "20\n"},
    "node-yarn": {"package.json": PACKAGE, "yarn.lock": "# yarn lockfile v1\n"},
    "node-yarn-4": {"package.json": PACKAGE, "yarn.lock": "__metadata:\n  version: 8\n"},
    "static": {"Procfile": None, "index.html": ""},
    "files": {"server.sh": "", "shipit.yml": "build: {command: make && ./configure '--x=a b'}"},
}


def plan(files: Mapping[str, str | None], settings: Settings | None = None) -> BuildPlan:
    tree = FakeTree({name: text for name, text in {**PROCFILE, **files}.items() if text is not None})
    built, _ = build_plan(
        read_manifest(tree),
        tree,
        slug=SLUG,
        cache=SLUG.parents[1] / "cache",
        tools=Path("/usr/lib/shipit/current/bin"),
        settings=settings or Settings(),
    )
    return built


def environment(files: Mapping[str, str | None], settings: Settings | None = None) -> Made:
    """The one directory that a Python build makes."""
    (made,) = plan(files, settings).made
    return made


def described(built: BuildPlan) -> str:
    def told(steps: tuple[Step, ...]) -> list[dict[str, object]]:
        return [{"title": s.title, "argv": s.argv, "environment": dict(s.environment)} for s in steps]

    body = {
        "runtime": built.runtime,
        "environment": built.environment,
        "made": [
            {
                "name": made.name,
                "reusable": bool(made.key),
                "seedable": bool(made.seed_key),
                "steps": told(made.steps),
                "seeded": told(made.seeded),
            }
            for made in built.made
        ],
        "steps": told(built.steps),
    }
    return json.dumps(body, indent=1) + "\n"


@pytest.mark.parametrize("name", PROJECTS)
def test_the_plan_of_each_kind_of_project_is_the_golden_one(name: str) -> None:
    golden = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(described(plan(PROJECTS[name])))
    assert described(plan(PROJECTS[name])) == golden.read_text()


def key(files: Mapping[str, str | None], settings: Settings | None = None) -> str:
    return environment(files, settings).key


@pytest.mark.parametrize("name", ["requirements", "uv", "poetry", "pipenv", "pyproject", "no-requirements"])
def test_a_change_of_code_alone_keeps_the_environment(name: str) -> None:
    files = PROJECTS[name]
    assert key(files) and key({**files, "app.py": "changed", "README.md": "new"}) == key({**files, "app.py": ""})


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("requirements", {"requirements.txt": "flask==3\n"}),
        ("requirements", {".python-version": "3.12\n"}),
        ("requirements", {"shipit.yml": "python: 3.13"}),
        ("uv", {"uv.lock": VIRTUAL + "#"}),
        ("uv", {"pyproject.toml": PYPROJECT + "#"}),
        ("uv", {"uv.toml": ""}),
        ("poetry", {"poetry.lock": POETRY + "#"}),
        ("pipenv", {"Pipfile.lock": '{"_meta": {}, "default": {"x": {}}}'}),
        ("pyproject", {"pyproject.toml": PYPROJECT.replace("flask", "django")}),
        ("no-requirements", {".python-version": "3.12"}),
    ],
)
def test_a_change_of_what_decides_makes_another_environment(name: str, changed: dict[str, str]) -> None:
    assert key({**PROJECTS[name], **changed}) != key(PROJECTS[name])


def test_the_servers_own_build_environment_decides_too() -> None:
    files = PROJECTS["requirements"]
    assert key(files, Settings(build_environment={"UV_INDEX_URL": "http://x/"})) != key(files)


def test_included_requirements_and_vendored_wheels_decide_too() -> None:
    files = {
        "requirements.txt": "-r reqs/base.txt\n-c limits.txt\n./wheels/a-1-py3-none-any.whl\n",
        "reqs/base.txt": "flask\n-r more.txt",
        "reqs/more.txt": "gunicorn",
        "limits.txt": "flask<4",
        "wheels/a-1-py3-none-any.whl": "zip",
    }
    before = key(files)
    assert before
    for name in files:
        assert key({**files, name: files[name] + "\n"}) != before, name


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        ".",
        "./lib",
        "lib/",
        "-r https://example.org/r.txt",
        "-f ./wheels",
        "x @ file:///x",
        "-e git+https://h/x",
    ],
)
def test_what_lies_outside_the_files_gives_no_key(line: str) -> None:
    assert key({"requirements.txt": f"flask\n{line}\n"}) == ""


@pytest.mark.parametrize("name", ["uv-packaged", "poetry-1", "setup"])
def test_a_project_that_is_itself_installed_gives_no_key(name: str) -> None:
    assert key(PROJECTS[name]) == ""


def test_an_include_that_is_not_there_is_told_with_its_line() -> None:
    with pytest.raises(Rejected, match=r"requirements\.txt:2: 'base\.txt' is not in the commit"):
        plan({"requirements.txt": "flask\n-r base.txt\n"})


def test_an_include_outside_the_app_is_refused() -> None:
    with pytest.raises(Rejected, match="outside the app's directory"):
        plan({"requirements.txt": "-r ../../etc/passwd\n"})


def test_includes_that_include_each_other_end() -> None:
    assert key({"requirements.txt": "-r b.txt", "b.txt": "-r requirements.txt\nflask"})


def test_two_lock_files_are_refused() -> None:
    with pytest.raises(Rejected) as caught:
        plan({"uv.lock": VIRTUAL, "poetry.lock": POETRY, "pyproject.toml": PYPROJECT})
    assert "uv.lock and poetry.lock" in caught.value.message and "git rm poetry.lock" in caught.value.hint


def test_a_lock_file_wins_over_requirements() -> None:
    assert environment({**PROJECTS["uv"], "requirements.txt": "x"}).steps[0].title == "Installing from uv.lock"


def test_a_pipfile_without_its_lock_is_refused() -> None:
    with pytest.raises(Rejected, match=r"no Pipfile\.lock"):
        plan({"Pipfile": ""})


def test_an_environment_that_is_there_leaves_only_the_apps_own_build_command() -> None:
    files = {**PROJECTS["requirements"], "shipit.yml": "build: {command: ./manage.py collectstatic --noinput}"}
    left = plan(files).steps
    assert [step.argv for step in left] == [("/bin/bash", "-c", "./manage.py collectstatic --noinput")]
    assert plan(PROJECTS["uv"]).steps == ()


@pytest.mark.parametrize("name", PROJECTS)
def test_of_a_copied_environment_the_same_is_installed_and_none_is_made(name: str) -> None:
    for made in plan(PROJECTS[name]).made:
        if not made.copier:
            continue
        assert made.seeded == tuple(step for step in made.steps if "venv" not in step.argv)
        assert bool(made.seed_key) is bool(made.key)


def test_another_lock_may_start_from_a_copy_and_another_python_may_not() -> None:
    files = PROJECTS["requirements"]
    seed = environment(files).seed_key
    assert environment({**files, "requirements.txt": "flask==3.0.0\n"}).seed_key == seed
    assert environment({**files, ".python-version": "3.12\n"}).seed_key != seed
    assert environment({**files, "uv.toml": "no-build = true\n"}).seed_key != seed


def test_settings_of_uv_in_pyproject_decide_the_environment_too() -> None:
    files = PROJECTS["requirements"]
    plain = environment({**files, "pyproject.toml": "[tool.ruff]\nline-length = 100\n"})
    assert plain.seed_key == environment(files).seed_key
    told = environment({**files, "pyproject.toml": "[tool.uv]\nconstraint-dependencies = ['flask<3']\n"})
    assert told.seed_key != plain.seed_key and told.key != plain.key
    assert environment({**files, "pyproject.toml": "no toml"}).seed_key == plain.seed_key


ADDABLE = "flask==3.0.0\ngunicorn  # serves\n"


def test_what_a_requirements_file_adds_is_installed_alone() -> None:
    new = environment({"requirements.txt": "rich[jupyter]>=13; python_version > '3'\n" + ADDABLE})
    (step,) = adding(new, environment({"requirements.txt": ADDABLE}).requires)
    assert step.argv[1:] == ("pip", "install", "rich[jupyter]>=13; python_version > '3'")


@pytest.mark.parametrize(
    "after",
    [
        ADDABLE,
        "gunicorn\nrich\n",
        "flask==3.1.0\ngunicorn\nrich\n",
        ADDABLE + "rich --no-binary rich\n",
        ADDABLE + "rich==13 --hash=sha256:00\n",
        ADDABLE + "rich @ https://example.org/rich.whl\n",
        ADDABLE + "https://example.org/rich.whl\n",
        ADDABLE + "wheels/rich.whl\nrich\n",
        ADDABLE + "rich-13-py3-none-any.whl\n",
        ADDABLE + "--extra-index-url https://example.org/\nrich\n",
        ADDABLE + "-c constraints.txt\nrich\n",
        ADDABLE + "-r more.txt\n",
        ADDABLE + "".join(f"package{number}\n" for number in range(60)),
    ],
)
def test_whatever_else_changes_takes_all_of_the_requirements(after: str) -> None:
    others = {"constraints.txt": "rich<13\n", "more.txt": "rich\n--pre\n", "rich-13-py3-none-any.whl": ""}
    new = environment({"requirements.txt": after, **others})
    assert adding(new, environment({"requirements.txt": ADDABLE}).requires) == ()


def test_what_is_included_counts_as_if_it_were_written_there() -> None:
    new = environment({"requirements.txt": "-r base.txt\nrich\n", "base.txt": ADDABLE})
    assert [step.argv[3:] for step in adding(new, environment({"requirements.txt": ADDABLE}).requires)] == [("rich",)]
    assert adding(environment(PROJECTS["uv"]), ("flask",)) == (), "a lock file is installed as it is"


def test_the_root_of_a_monorepo_is_planned_alone() -> None:
    files = {
        "shipit.yml": "build: {root: api}",
        "api/Procfile": "web: x",
        "api/requirements.txt": "flask",
        "uv.lock": "",
    }
    assert key(files) == key({"Procfile": "web: x", "requirements.txt": "flask"})


def test_requirements_in_their_own_directory_are_found() -> None:
    files = {"requirements/production.txt": "-r base.txt\ngunicorn\n", "requirements/base.txt": "flask\n"}
    made = environment(files)
    assert made.steps[-1].argv[1:] == ("pip", "install", "--exact", "-r", "requirements/production.txt")
    assert environment({**files, "requirements/base.txt": "flask<3\n"}).key != made.key


def test_a_group_for_production_is_installed_too() -> None:
    extra = PYPROJECT + "[project.optional-dependencies]\nproduction = ['gunicorn']\n"
    assert environment({"pyproject.toml": extra}).steps[-1].argv[-2:] == ("--extra", "production")
    locked = {"pyproject.toml": extra, "uv.lock": VIRTUAL, "Procfile": "web: x"}
    assert "--extra" in environment(locked).steps[-1].argv
    group = PYPROJECT + "[dependency-groups]\nprod = ['gunicorn']\n"
    assert environment({"pyproject.toml": group, "Procfile": "web: x"}).steps[-1].argv[-2:] == (
        "--group",
        "pyproject.toml:prod",
    )


def test_a_setup_cfg_alone_is_what_setuptools_reads() -> None:
    titles = [step.title for step in environment({"setup.cfg": "[metadata]\nname = x\n", "Procfile": "web: x"}).steps]
    assert titles[-2:] == ["Making a setup.py for setup.cfg", "Installing the project and its dependencies"]
