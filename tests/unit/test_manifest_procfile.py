from __future__ import annotations

import pytest

from receiver.errors import Rejected
from receiver.manifest import procfile
from receiver.manifest.problems import Problems


def parsed(text: str) -> dict[str, str]:
    problems = Problems()
    found = procfile.parse(text, problems)
    problems.check()
    commands = {str(kind): line.command for kind, line in found.processes.items()}
    return {**commands, "release": found.release.command} if found.release else commands


def refused(text: str) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parsed(text)
    return caught.value


def test_lines_are_types_and_commands() -> None:
    assert parsed("web: gunicorn app:app\nworker:python -m worker  \n\n") == {
        "web": "gunicorn app:app",
        "worker": "python -m worker",
    }


def test_release_is_the_release_command_and_no_process_type() -> None:
    problems = Problems()
    found = procfile.parse("release: ./migrate\nweb: run\n", problems)
    assert found.release is not None and found.release.command == "./migrate" and list(found.processes) == ["web"]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("web: run # here", "run"),
        ("web: run // here", "run"),
        ("web: run '# not' \"// one\"", "run '# not' \"// one\""),
        ("web: curl http://example.org", "curl http://example.org"),
        ("web: ls //server/share", "ls //server/share"),
        (r"web: echo \" # gone", r"echo \""),
        ("web: echo it#is", "echo it#is"),
    ],
)
def test_a_comment_ends_a_line_only_outside_quotes_and_after_a_blank(line: str, command: str) -> None:
    assert parsed(line) == {"web": command}


def test_comment_lines_blank_lines_and_windows_line_ends_are_left_out() -> None:
    assert parsed("\ufeff# one\r\n// two\r\n\r\nweb: run\r\n".encode().decode("utf-8-sig")) == {"web": "run"}


def test_every_bad_line_is_told_at_once_with_its_number() -> None:
    failure = refused("web gunicorn\nWorker: x\nweb:\n<<<<<<< HEAD\nclock: a\nclock: b\n")
    told = failure.message.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"Procfile:{n}" for n in (1, 2, 3, 4, 6)]
    assert "merge conflict" in told[3] and "line 5 has it too" in told[4]


@pytest.mark.parametrize("name", ["under__score", "-a", "a-", "9lives", "a" * 41, "a--b"])
def test_what_is_no_process_type_is_refused(name: str) -> None:
    assert "Procfile:1: " in refused(f"{name}: run").message


@pytest.mark.parametrize("line", ["web: a\x07b", "web: " + "x" * 4097, "web: \x1b[31mred"])
def test_a_command_that_no_terminal_or_file_should_hold_is_refused(line: str) -> None:
    assert refused(line).message.startswith("Procfile:1: The command of web")


def test_pikus_wsgi_is_gunicorn() -> None:
    assert parsed("wsgi: blog.wsgi:application") == {"web": "gunicorn blog.wsgi:application"}


def test_wsgi_beside_web_is_the_same_type_twice() -> None:
    assert "web is there twice" in refused("web: run\nwsgi: a:b\n").message.replace("wsgi", "web")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("static: /public", "`static: DIRECTORY`"),
        ("rwsgi: x", "rwsgi"),
        ("jwsgi: x", "jwsgi"),
        ("wsgi: gunicorn app:app", "not module:app"),
    ],
)
def test_pikus_other_kinds_are_said_to_be_not_supported(line: str, word: str) -> None:
    assert word in refused(line).message


def test_pikus_cron_lines_are_process_types_that_run_by_the_clock() -> None:
    problems = Problems()
    found = procfile.parse("cron1: 0  0 * * 1-5 ./nightly --all\ncron2: @daily ./x\n", problems)
    assert not problems
    assert [(kind, line.cron, line.command) for kind, line in found.processes.items()] == [
        ("cron1", "0 0 * * 1-5", "./nightly --all"), ("cron2", "@daily", "./x"),
    ]  # fmt: skip


def test_a_process_type_called_cron_that_runs_a_program_is_fine() -> None:
    assert parsed("cron: python -m scheduler") == {"cron": "python -m scheduler"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "release: ./migrate\n"])
def test_a_procfile_of_which_nothing_could_run_is_refused(text: str) -> None:
    assert refused(text).message == "Procfile: There is no process type in it."
