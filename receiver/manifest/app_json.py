"""app.json as Heroku and Dokku know it: the parts that shipit can honour, and a notice for every other.

Source of the fields: Dokku's docs/appendices/file-formats/app-json.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from receiver import names
from receiver.errors import Rejected
from receiver.manifest.document import Document, Path
from receiver.manifest.problems import Problems
from receiver.manifest.tree import Tree
from receiver.model import Check, CheckKind
from receiver.names import ConfigKey
from receiver.schedule import Schedule, schedule

NAME = "app.json"

_ABOUT = frozenset(
    {"$schema", "name", "description", "keywords", "website", "repository", "logo", "success_url", "stack"}
)
_USED = frozenset({"cron", "env", "formation", "healthchecks", "scripts"})
_VAR = frozenset({"description", "generator", "required", "value"})
_CRON = frozenset({"command", "schedule", "concurrency_policy", "maintenance", "name", "description"})
_CHECK = frozenset(
    {"type", "name", "description", "path", "content", "command", "attempts", "timeout", "wait", "initialDelay",
     "uptime", "listening"}
)  # fmt: skip


@dataclass(frozen=True)
class AppJson:
    """`counts` and `checks` by process type, each with its place for messages. `env`: defaults of config vars;
    `required`: those that must be set before anything runs, each with its place; `secrets`: those that are made, once.
    `crons`: a command, when it runs, and its place."""

    counts: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    checks: Mapping[str, tuple[Check, str]] = field(default_factory=dict)
    env: tuple[tuple[ConfigKey, str], ...] = ()
    required: tuple[tuple[ConfigKey, str], ...] = ()
    secrets: tuple[ConfigKey, ...] = ()
    predeploy: str = ""
    crons: tuple[tuple[str, Schedule, str], ...] = ()
    notices: tuple[str, ...] = ()


def read(tree: Tree, problems: Problems) -> AppJson:
    """Read app.json of a tree, or nothing if there is none. What is wrong goes to `problems`."""
    raw = tree.read(NAME)
    if raw is None:
        if NAME in tree.files():
            problems.add(NAME, "The file is larger than 256 KiB.")
        return AppJson()
    from receiver.manifest import json_document

    return _Reader(json_document.parse(NAME, raw), problems).read()


class _Reader:
    """One app.json being read."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self._document = document
        self._problems = problems
        self._notices: list[str] = []

    def read(self) -> AppJson:
        data = self._document.data
        if not isinstance(data, dict):
            self._wrong((), "The file must hold an object.")
            return AppJson()
        for key in data:
            if key not in _ABOUT | _USED:
                self._ignored((key,), f"{key} is ignored.")
        counts = {}
        for kind, said in self._mapping(data, "formation").items():
            count = self._count(("formation", kind), said)
            if count is not None:
                counts[kind] = count
        checks = {}
        for kind, said in self._mapping(data, "healthchecks").items():
            check = self._startup_check(("healthchecks", kind), said)
            if check:
                checks[kind] = check
        env, required, secrets = self._env(data)
        predeploy, crons = self._predeploy(data), tuple(self._crons(data))
        return AppJson(counts, checks, env, required, secrets, predeploy, crons, tuple(self._notices))

    def _env(self, data: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Heroku's and Dokku's: text is a default; an object may have one, or be `required` (it is, unless it says no),
        or made by a `generator`."""
        env, required, secrets = [], [], []
        for name, said in self._mapping(data, "env").items():
            path = ("env", name)
            try:
                key = names.config_key(name)
            except Rejected as error:
                self._wrong(path, f"{error.message} {error.hint}")
                continue
            about = {"value": said} if isinstance(said, (str, int, float)) else said
            if not isinstance(about, dict):
                self._wrong(path, f"env.{name} must be text or an object.")
                continue
            for word in about:
                if word not in _VAR:
                    self._ignored((*path, word), f"env.{name}.{word} is ignored.")
            value, generator = about.get("value", ""), about.get("generator")
            if isinstance(value, (bool, dict, list)) or len(str(value)) > 32768 or "\0" in str(value):
                self._wrong((*path, "value"), f"env.{name}.value must be text.")
            elif generator is not None:
                if generator != "secret":
                    self._wrong((*path, "generator"), f"env.{name}.generator can only be secret.")
                secrets.append(key)
            elif value not in ("", None):
                env.append((key, str(value)))
            elif about.get("required", True) and "value" not in about:
                required.append((key, self._document.at(path)))
        return tuple(env), tuple(required), tuple(secrets)

    def _mapping(self, data: dict[str, Any], key: str) -> dict[str, Any]:
        value = data.get(key, {})
        if not isinstance(value, dict):
            self._wrong((key,), f"{key} must be an object.")
            return {}
        return value

    def _count(self, path: tuple[str, ...], said: Any) -> tuple[int, str] | None:
        if not isinstance(said, dict):
            self._wrong(path, f"{'.'.join(path)} must be an object.")
            return None
        for key in said:
            if key not in ("quantity", "size"):
                self._ignored((*path, key), f"{'.'.join(path)}.{key} is ignored.")
        if "quantity" not in said:
            return None
        quantity = said["quantity"]
        if type(quantity) is not int or not 0 <= quantity <= 100:
            self._wrong((*path, "quantity"), f"{'.'.join(path)}.quantity must be a whole number between 0 and 100.")
            return None
        return quantity, self._document.at((*path, "quantity"))

    def _startup_check(self, path: tuple[str, ...], said: Any) -> tuple[Check, str] | None:
        if not isinstance(said, list) or not all(isinstance(item, dict) for item in said):
            self._wrong(path, f"{'.'.join(path)} must be a list of objects.")
            return None
        found = None
        for i, item in enumerate(said):
            where: Path = (*path, i)
            if item.get("type", "startup") != "startup":
                self._ignored(where, f"a {item.get('type')} check is ignored; shipit checks when a release starts.")
            elif found:
                self._ignored(where, "only the first startup check of a process type is used.")
            else:
                found = self._check(where, item), self._document.at(where)
        return found

    def _check(self, path: Path, item: dict[str, Any]) -> Check:
        for key in item:
            if key not in _CHECK:
                self._ignored((*path, key), f"{key} of a healthcheck is ignored.")
        attempts, timeout = self._number(path, item, "attempts", 3), self._number(path, item, "timeout", 5)
        wait, delay = self._number(path, item, "wait", 5), self._number(path, item, "initialDelay", 0)
        total = min(max(delay + attempts * (timeout + wait), 1), 3600)
        command = item.get("command")
        if command is not None:
            if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
                self._wrong((*path, "command"), "command of a healthcheck must be a list of words.")
                command = ["false"]
            return Check(CheckKind.COMMAND, command=shlex.join(command), timeout=total)
        if item.get("listening") is True:
            return Check(CheckKind.TCP, timeout=total)
        if "uptime" in item and "path" not in item:
            settle = min(self._number(path, item, "uptime", 10), 300)
            return Check(CheckKind.UPTIME, settle=settle, timeout=max(total, settle + 1))
        return Check(
            CheckKind.HTTP, path=self._text(path, item, "path", "/"), content=self._text(path, item, "content", ""),
            timeout=total,
        )  # fmt: skip

    def _crons(self, data: dict[str, Any]) -> Iterator[tuple[str, Schedule, str]]:
        said = data.get("cron", [])
        if not isinstance(said, list) or not all(isinstance(item, dict) for item in said):
            self._wrong(("cron",), "cron must be a list of objects.")
            return
        for i, item in enumerate(said):
            where: Path = ("cron", i)
            command, when, policy = item.get("command"), item.get("schedule"), item.get("concurrency_policy", "forbid")
            if not isinstance(command, str) or not command.strip() or not command.isprintable() or len(command) > 4096:
                self._wrong((*where, "command"), "command of a cron must be one line, a command.")
                continue
            for key in item:
                if key not in _CRON:
                    self._ignored((*where, key), f"{key} of a cron is ignored.")
            if item.get("maintenance"):
                self._ignored(where, f"{command[:40]!a} is left out: it says maintenance.")
                continue
            if policy not in ("allow", "forbid"):
                self._ignored(
                    (*where, "concurrency_policy"), "shipit ends no run for the next one: it waits for its turn."
                )
            try:
                if not isinstance(when, str):
                    raise Rejected("schedule of a cron must be text.")
                yield command, schedule(when, overlap=policy == "allow"), self._document.at(where)
            except Rejected as error:
                self._wrong((*where, "schedule"), error.message)

    def _number(self, path: Path, item: dict[str, Any], key: str, default: int) -> int:
        value = item.get(key, default)
        if type(value) is not int or not 0 <= value <= 3600:
            self._wrong((*path, key), f"{key} of a healthcheck must be a whole number between 0 and 3600.")
            return default
        return value

    def _text(self, path: Path, item: dict[str, Any], key: str, default: str) -> str:
        value = item.get(key, default)
        fits = isinstance(value, str) and len(value) <= 1000
        if fits and key == "path":
            fits = value.startswith("/") and all("!" <= char <= "~" for char in value)
        if not fits:
            self._wrong((*path, key), f"{key} of a healthcheck must be {'a path' if key == 'path' else 'text'}.")
            return default
        return str(value)

    def _predeploy(self, data: dict[str, Any]) -> str:
        scripts = self._mapping(data, "scripts")
        dokku = scripts.get("dokku", {})
        for key in scripts:
            if key != "dokku":
                self._ignored(("scripts", key), f"scripts.{key} is not run.")
        if not isinstance(dokku, dict):
            self._wrong(("scripts", "dokku"), "scripts.dokku must be an object.")
            return ""
        for key in dokku:
            if key != "predeploy":
                self._ignored(("scripts", "dokku", key), f"scripts.dokku.{key} is not run.")
        command = dokku.get("predeploy", "")
        path = ("scripts", "dokku", "predeploy")
        if not isinstance(command, str) or len(command) > 4096 or any(c < " " and c != "\t" for c in command):
            self._wrong(path, "scripts.dokku.predeploy must be one line, a command.")
            return ""
        return command.strip()

    def _wrong(self, path: Path, message: str) -> None:
        self._problems.add(self._document.at(path), message)

    def _ignored(self, path: Path, message: str) -> None:
        self._notices.append(f"{self._document.at(path)}: {message}")
