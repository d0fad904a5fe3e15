"""Python programs with a server of their own: Streamlit, Dash, Gradio, or a script that reads the port from $PORT.

Sources are read, never run.
"""

from __future__ import annotations

import re

from receiver.manifest.tree import Tree
from receiver.runtimes.base import Suggestion
from receiver.runtimes.python.project import packages
from receiver.runtimes.python.told import in_readme

MAX_SOURCE = 256 * 1024

# Usual names of such a program, the best first; in a project with a single file at its top, that file.
_USUAL = ("streamlit_app.py", "app.py", "main.py", "server.py", "run.py", "bot.py", "Home.py", "Hello.py", "home.py",
          "index.py")  # fmt: skip
_STARTS = re.compile(rb"^if\s+__name__\s*==\s*['\"]__main__['\"]", re.MULTILINE)
_ASKS = re.compile(
    rb"environ(?:\.get\(|\[)\s*['\"](?:\w+_)?PORT['\"]|getenv\(\s*['\"](?:\w+_)?PORT['\"]|\benv(?:\.int|\.str)?\(\s*['\"]PORT['\"]"
)
# What a README says of such a program.
_BY_HAND = {"streamlit": "streamlit run", "gradio": "python", "panel": "panel serve", "chainlit": "chainlit run"}
_OF_TESTS = re.compile(r"test_\w*\.py|\w+_test\.py|conftest\.py|setup\.py")
_OWN = re.compile(rb"['\"]PORT['\"]")
_STREAMLIT = "streamlit run {file} --server.port $PORT --server.address 127.0.0.1 --server.headless true"
# By package: a pattern that its program contains, and the command that listens on the right address.
_KINDS = (
    ("streamlit", re.compile(rb"^[ \t]*(?:import|from)\s+streamlit\b", re.MULTILINE), _STREAMLIT),
    ("gradio", re.compile(rb"\.launch\("), "GRADIO_SERVER_PORT=$PORT GRADIO_SERVER_NAME=127.0.0.1 python {file}"),
    ("panel", re.compile(rb"\.servable\("), "panel serve {file} --address 127.0.0.1 --port $PORT --allow-websocket-origin '*'"),
    ("chainlit", re.compile(rb"^[ \t]*(?:import|from)\s+chainlit\b", re.MULTILINE), "chainlit run {file} --headless --host 127.0.0.1 --port $PORT"),
    # Dash's own `run` reads PORT and HOST from the environment.
    ("dash", re.compile(rb"\b(?:dash\.)?Dash\("), "python {file}"),
)  # fmt: skip


def suggestion(tree: Tree) -> Suggestion | None:
    """How such a program is started; None if there is none."""
    needed = {name.partition("[")[0] for name in packages(tree)}
    sources = _sources(tree)
    for package, shows, line in _KINDS:
        if package not in needed:
            continue
        found = [path for path, text in sources if shows.search(text)]
        by_hand = _BY_HAND.get(package, "")
        told = in_readme(tree, by_hand) if by_hand and not _one(found) else ""
        if path := _one(found) or (told if told and shows.search(tree.read(told) or b"") else ""):
            command = _dash(tree, path) if package == "dash" else line.format(file=path)
            if command:
                notice = f"No Procfile: {path} is an app of {package}, so `web: {command}`."
                return Suggestion(notice, web=command, guess=bool(told))
    asking = [path for path, text in sources if _STARTS.search(text) and _ASKS.search(text) and _OWN.search(text)]
    if path := _one(asking):
        command = f"python {path}"
        return Suggestion(f"No Procfile: {path} asks for PORT, so `web: {command}`.", web=command)
    return None


# A project that requires one of these answers requests.
_SERVERS = frozenset(
    {"django", "flask", "fastapi", "starlette", "aiohttp", "tornado", "bottle", "sanic", "falcon", "pyramid", "cherrypy",
     "quart", "litestar", "dash", "streamlit", "gradio", "panel", "gunicorn", "uvicorn", "waitress"}
)  # fmt: skip


def alone(tree: Tree) -> str:
    """The only program at the top; "" if there is none, or several."""
    found = [path for path, text in _sources(tree) if _STARTS.search(text) and not path.startswith("test")]
    return found[0] if len(found) == 1 else ""


def serves(tree: Tree) -> bool:
    return bool({name.partition("[")[0] for name in packages(tree)} & _SERVERS)


def _sources(tree: Tree) -> list[tuple[str, bytes]]:
    paths = sorted(
        path for path in tree.files() if path.endswith(".py") and "/" not in path and not _OF_TESTS.fullmatch(path)
    )
    order = {name: at for at, name in enumerate(_USUAL)}
    paths.sort(key=lambda path: order.get(path, len(order)))
    read = ((path, tree.read(path) or b"") for path in paths[:40])
    return [(path, text) for path, text in read if len(text) <= MAX_SOURCE]


def _one(paths: list[str]) -> str:
    """The one of several programs that is the app; "" if nothing says which."""
    usual = [path for path in paths if path in _USUAL]
    return usual[0] if usual else paths[0] if len(paths) == 1 else ""


def _dash(tree: Tree, path: str) -> str:
    """Under gunicorn, if the program has the variable `server` for it; else its own server, for one visitor at a
    time."""
    text = tree.read(path) or b""
    server = re.search(rb"^(\w+)\s*=\s*\w+\.server\b", text, re.MULTILINE)
    if server:
        return f"gunicorn --threads 4 {path.removesuffix('.py')}:{server[1].decode()}"
    return f"python {path}" if _STARTS.search(text) else ""
