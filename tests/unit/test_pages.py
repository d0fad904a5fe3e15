"""The pages that nginx serves are written by tools/pages, where what they share stands once."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_pages_are_those_that_tools_pages_writes() -> None:
    loader = importlib.machinery.SourceFileLoader("pages", str(ROOT / "tools/pages"))
    spec = importlib.util.spec_from_loader("pages", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    written = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "templates/pages").glob("*.html")}
    assert written == module.pages(), "run tools/pages"
