"""A template's text is taken from memory only while nothing that it is made of has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.errors import Rejected
from receiver.names import AppName
from receiver.paths import Layout
from receiver.system import render
from receiver.system.rendered import Rendered

NAME = "systemd/mine.j2"


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rendered:
    """With an administrator's template that includes another."""
    admin = tmp_path / "templates"
    (admin / "systemd").mkdir(parents=True)
    (admin / NAME).write_text('{{ colour }}\n{% include "systemd/part.j2" %}\n')
    (admin / "systemd/part.j2").write_text("part\n")
    monkeypatch.setattr(render, "ADMIN", admin)
    render.environment.cache_clear()
    yield Rendered(Layout(tmp_path), AppName("blog"))
    render.environment.cache_clear()


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*words: object, **values: object) -> str:
        raise AssertionError("it was made again")

    monkeypatch.setattr(render, "render", made)


def test_the_same_template_and_values_are_not_filled_again(texts: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    first = texts.render(NAME, colour="red", where=Path("/x"))
    assert first == "red\npart\n"
    forbid(monkeypatch)
    assert texts.render(NAME, colour="red", where=Path("/x")) == first


@pytest.mark.parametrize("change", ["value", "template", "included", "torn", "foreign"])
def test_whatever_has_changed_is_seen(texts: Rendered, change: str) -> None:
    texts.render(NAME, colour="red")
    kept = next((texts.layout.rendered / "blog").iterdir())
    colour, part = "red", "part"
    if change == "value":
        colour = "blue"
    elif change == "template":
        (render.ADMIN / NAME).write_text('blue\n{% include "systemd/part.j2" %}\n')
        colour = "blue"
    elif change == "included":
        (render.ADMIN / "systemd/part.j2").write_text("other\n")
        part = "other"
    else:
        kept.write_bytes(kept.read_bytes()[:-9] if change == "torn" else b"[]")
    render.environment.cache_clear()
    assert texts.render(NAME, colour=colour) == f"{colour}\n{part}\n"


def test_what_no_file_may_hold_is_refused_and_not_kept(texts: Rendered) -> None:
    with pytest.raises(Rejected):
        texts.render(NAME, colour="red\nUser=root")
    assert not texts.layout.rendered.exists()


def test_it_is_roots_alone_and_goes_with_the_app(texts: Rendered) -> None:
    texts.render(NAME, colour="red")
    (kept,) = (texts.layout.rendered / "blog").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o777 == 0o700
    texts.forget()
    assert not kept.parent.exists()
