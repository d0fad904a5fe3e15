from __future__ import annotations

import pytest

from receiver import here
from receiver.errors import Rejected


def where(monkeypatch: pytest.MonkeyPatch, port: int, *, remote: bool) -> None:
    for name in (here.HOST, here.REMOTE):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    here.say_where("shipit", "box.example", port, remote=remote)


HINT = (
    "Unlock it: shipit apps:unlock blog\nor push: git push HOST:blog main\nor: ssh HOST config:set blog NAME - < FILE"
)


@pytest.mark.parametrize(
    ("port", "remote", "said"),
    [
        (
            22,
            True,
            ("ssh shipit@box.example apps:unlock blog", "shipit@box.example:blog main", "ssh shipit@box.example c"),
        ),
        (
            2222,
            True,
            (
                "ssh -p 2222 shipit@box.example apps:",
                "ssh://shipit@box.example:2222/blog main",
                "ssh -p 2222 shipit@box",
            ),
        ),
        (22, False, ("Unlock it: shipit apps:unlock blog", "shipit@box.example:blog main", "ssh shipit@box.example c")),
    ],
)
def test_a_hint_can_be_pasted_where_it_is_read(
    monkeypatch: pytest.MonkeyPatch, port: int, remote: bool, said: tuple[str, ...]
) -> None:
    where(monkeypatch, port, remote=remote)
    text = "\n".join(Rejected("It is locked.", hint=HINT).lines())
    assert all(words in text for words in said), text
    assert "HOST" not in text


def test_the_list_of_all_commands_can_be_asked_for_where_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {}
    for remote in (True, False):
        where(monkeypatch, 22, remote=remote)
        said[remote] = here.typed("All commands: shipit --help")
    assert said == {
        True: "All commands: ssh shipit@box.example shipit --help", False: "All commands: shipit --help"
    }  # fmt: skip


def test_a_server_without_a_name_is_named_by_the_address_that_the_login_came_to() -> None:
    assert here.address("apps.example.org", "10.0.0.9 50000 10.0.0.1 22") == "apps.example.org"
    assert here.address("localhost", "10.0.0.9 50000 10.0.0.1 22") == "10.0.0.1"
