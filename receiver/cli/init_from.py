"""`init --from`: makes Procfile and shipit.yml from another receiver's manifest; lists what has no equivalent here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from receiver import names
from receiver.errors import Rejected
from receiver.manifest import Tree
from receiver.manifest.problems import decode, reject
from receiver.runtimes.all import RUNTIMES

MAX_BYTES = 256 * 1024
_WSGI = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass
class Converted:
    """`types`: process type → command. `settings`: the content of shipit.yml. `told`: what the user has to do or
    know."""

    types: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def put(self, value: object, *path: str) -> None:
        """Set a value of shipit.yml, below the sections that `path` names."""
        place = self.settings
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value

    def add_type(self, name: str, command: object, where: str) -> bool:
        """Add a line of the Procfile; False, with a message in `told`, if it cannot be one."""
        words = " ".join(map(str, command)) if isinstance(command, list) else command
        try:
            kind = names.type_name(name.replace("_", "-").lower())
        except Rejected as error:
            self.told.append(f"{where}: {error.message}")
            return False
        if not isinstance(words, str) or not words.strip() or not words.isprintable():
            self.told.append(f"{where}: {name} has no command on one line.")
            return False
        self.types[kind] = words.strip()
        return True

    def files(self) -> dict[str, str]:
        """The two files, as texts."""
        import yaml

        procfile = "".join(f"{kind}: {command}\n" for kind, command in self.types.items())
        settings = (
            yaml.safe_dump(self.settings, sort_keys=False, width=10**6, allow_unicode=True) if self.settings else ""
        )
        return {name: text for name, text in (("Procfile", procfile), ("shipit.yml", settings)) if text}


def convert(tree: Tree, source: str) -> Converted:
    """Read the manifest at a path of the project; raises Rejected if it is of no known kind."""
    paths = [source] if source in tree.files() else [path for path in USUAL.get(source, ()) if path in tree.files()]
    if not paths:
        known = ", ".join(sorted({*USUAL}))
        raise Rejected(
            f"There is no {source} here.", hint=f"What can be converted: {known}, or the path of such a file."
        )
    path = paths[0]
    kind = source if source in USUAL else next((name for name, usual in USUAL.items() if _is(path, usual)), "")
    if not kind:
        raise Rejected(f"{path} is of no receiver that is known here.", hint=f"Known: {', '.join(sorted(USUAL))}")
    return _BY_KIND[kind](_read(tree, path), path)


def _is(path: str, usual: tuple[str, ...]) -> bool:
    return path.rpartition("/")[2] in {one.rpartition("/")[2] for one in usual}


def _read(tree: Tree, path: str) -> Mapping[str, Any]:
    import yaml

    class Plain(yaml.SafeLoader):
        """Without floats and dates: 3.10 stays a text."""

    left_out = {f"tag:yaml.org,2002:{kind}" for kind in ("float", "timestamp")}
    Plain.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in known if tag not in left_out]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    raw = tree.read(path)
    try:
        # JSON is YAML, too. ERB code in a deploy.yml stays as text.
        data = yaml.load(decode(path, raw or b"", MAX_BYTES), Plain)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise reject(path, f"This is not YAML or JSON: {ascii(str(error))[1:200]}") from error
    if not isinstance(data, dict):
        raise reject(path, "It must be a mapping.")
    return data


def _table(data: Any, key: str) -> dict[str, Any]:
    value = data.get(key) if isinstance(data, dict) else None
    return {str(name): said for name, said in value.items()} if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        # Aliases could expand a few lines beyond any memory.
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _whole(value: Any, at_most: int) -> int:
    return min(value, at_most) if type(value) is int and value > 0 else 0


def _sailor(data: Mapping[str, Any], path: str) -> Converted:
    made = Converted()
    apps = [app for app in _list(data.get("apps")) if isinstance(app, dict)]
    if not apps:
        raise reject(path, "It has no apps.")
    if len(apps) > 1:
        others = ", ".join(_text(app.get("name")) for app in apps[1:])
        made.told.append(
            f"{path}: it has several apps; this is the first. Push the others as apps of their own: {others}"
        )
    app = apps[0]
    runtime, version = app.get("runtime"), app.get("runtime_version")
    if version and runtime in {one.name for one in RUNTIMES}:
        made.put(_text(version), runtime)
    if env := _table(app, "env"):
        made.put({key: _text(value) for key, value in env.items() if value is not None}, "env")
    assets: dict[str, str] = {}
    for pair in _list(app.get("static_paths")):
        url, _, directory = _text(pair).partition(":")
        if url.strip("/") and directory.strip("/"):
            assets["/" + url.strip("/")] = directory.strip("/")
    if assets:
        made.put(assets, "static")
    scripts = _table(app, "scripts")
    release = [_text(line) for name in ("release", "predeploy") for line in _list(scripts.get(name))]
    if release:
        made.put(" && ".join(release), "release")
    for name in ("postdeploy", "destroy"):
        if scripts.get(name):
            made.told.append(f"{path}: scripts.{name} runs nowhere here.")
    for name, said in {**_table(app, "process"), **_table(app, "run")}.items():
        if name == "cron":
            for number, line in enumerate(_list(said), 1):
                fields = _text(line).split(None, 5)
                if len(fields) == 6 and made.add_type(f"cron-{number}", fields[5], path):
                    made.put(" ".join(fields[:5]), "processes", f"cron-{number}", "schedule")
            continue
        command = said.get("cmd") if isinstance(said, dict) else said
        if name == "web" and runtime == "static":
            made.put(_text(command or ".").strip("/") or ".", "static")
        elif name == "web" and isinstance(command, str) and _WSGI.fullmatch(command):
            # The Procfile has a word for it, with which the server is chosen there.
            made.types["wsgi"] = command
        elif not made.add_type(name, command, path):
            continue
        if isinstance(said, dict):
            _scale(made, name, said)
            domains = [word for word in _text(said.get("server_name") or "").split() if word != "_"]
            if domains:
                made.put(domains, "domains")
    for key in ("ssl", "ssl_issuer", "https_only", "nginx", "uwsgi", "threads", "auto_restart"):
        if app.get(key):
            made.told.append(f"{path}: {key} has no place in shipit.yml. HTTPS: shipit tls:enable APP")
    return made


def _scale(made: Converted, name: str, said: Mapping[str, Any]) -> None:
    count = 0 if said.get("enabled") is False else _whole(said.get("workers"), 100)
    if (name != "web" or count != 1) and (count or said.get("enabled") is False):
        made.put(count, "processes", name.replace("_", "-").lower(), "count")


def _app_json(data: Mapping[str, Any], path: str) -> Converted:
    made = Converted()
    for kind, said in _table(data, "formation").items():
        count = said.get("quantity") if isinstance(said, dict) else None
        if type(count) is int:
            made.put(count, "processes", kind, "count")
    env: dict[str, str] = {}
    for key, said in _table(data, "env").items():
        value = said.get("value") if isinstance(said, dict) else said
        if value is not None:
            env[key] = _text(value)
        elif isinstance(said, dict) and said.get("generator"):
            made.told.append(
                f"{path}: {key} is a secret; app.json makes one with the first release, so keep it, or config:set."
            )
        elif not isinstance(said, dict) or said.get("required", True):
            made.told.append(f"{path}: the app needs {key}:  shipit config:set APP {key}=…")
    if env:
        made.put(env, "env")
    scripts = _table(data, "scripts")
    predeploy = _table(scripts, "dokku").get("predeploy")
    if isinstance(predeploy, str):
        made.put(predeploy, "release")
    for name in sorted({*scripts} - {"dokku"}) + sorted({*_table(scripts, "dokku")} - {"predeploy"}):
        made.told.append(f"{path}: scripts: {name} runs nowhere here.")
    for kind, checks in _table(data, "healthchecks").items():
        first = next((one for one in _list(checks) if isinstance(one, dict) and one.get("type") == "startup"), None)
        for key in ("path", "content"):
            if first and isinstance(first.get(key), str):
                made.put(first[key], "processes", kind, "healthcheck", key)
    for number, said in enumerate(_list(data.get("cron")), 1):
        if isinstance(said, dict) and made.add_type(f"cron-{number}", said.get("command"), path):
            made.put(_text(said.get("schedule")), "processes", f"cron-{number}", "schedule")
    made.told.append(
        f"{path} counts by itself, too: nothing has to be converted. Remove it once shipit.yml says it all."
    )
    return made


def _kamal(data: Mapping[str, Any], path: str) -> Converted:
    made = Converted()
    servers = data.get("servers")
    roles = _table(data, "servers") if isinstance(servers, dict) else {"web": {}}
    for role, said in roles.items():
        command = said.get("cmd") if isinstance(said, dict) else None
        if command:
            made.add_type(role, command, path)
        else:
            made.told.append(f"{path}: {role} runs what its image starts; write that into the Procfile:  {role}: …")
        hosts = said.get("hosts") if isinstance(said, dict) else said
        if len(_list(hosts)) > 1:
            made.told.append(f"{path}: {role} has {len(_list(hosts))} hosts; push to each, a remote for each.")
        if role != "web":
            made.put(1, "processes", role.replace("_", "-").lower(), "count")
    proxy = _table(data, "proxy")
    hosts = [_text(host) for key in ("host", "hosts") for host in _list(proxy.get(key))]
    if hosts:
        made.put(hosts, "domains")
    check = _table(proxy, "healthcheck")
    if isinstance(check.get("path"), str):
        made.put(check["path"], "processes", "web", "healthcheck", "path")
    if seconds := _whole(data.get("deploy_timeout"), 3600):
        made.put(seconds, "processes", "web", "healthcheck", "timeout")
    if seconds := _whole(data.get("drain_timeout"), 3600):
        made.put(seconds, "processes", "web", "drain")
    if seconds := _whole(proxy.get("response_timeout"), 86400):
        made.put(seconds, "proxy", "timeout")
    if proxy.get("ssl"):
        made.told.append(f"{path}: proxy.ssl:  shipit tls:enable APP")
    if proxy.get("app_port"):
        made.told.append(
            f"{path}: the app is asked at $PORT, not at {_text(proxy['app_port'])}: its command has to name it."
        )
    env = _table(data, "env")
    clear = _table(env, "clear") if "clear" in env or "secret" in env else env
    plain = {
        key: _text(value) for key, value in clear.items() if not isinstance(value, (dict, list)) and value is not None
    }
    if plain:
        made.put(plain, "env")
    if secrets := [_text(name).partition(":")[0] for name in _list(env.get("secret"))]:
        made.told.append(f"{path}: secrets:  shipit config:set APP {' '.join(f'{name}=…' for name in secrets)}")
    places = [_text(volume).split(":")[1].removeprefix("/rails/").strip("/") for volume in _list(data.get("volumes"))
              if _text(volume).count(":") >= 1]  # fmt: skip
    if places:
        made.put(places, "storage")
        made.told.append(f"{path}: volumes are paths below $DATA_DIR, seen in the release: check `storage`.")
    for name in _table(data, "accessories"):
        made.told.append(
            f"{path}: the accessory {name} is no app of a push: install it on the server, and config:set its address."
        )
    return made


# The word after --from → the usual paths of that manifest.
USUAL: Mapping[str, tuple[str, ...]] = {
    "sailor.yml": ("sailor.yml",),
    "app.json": ("app.json",),
    "kamal": ("config/deploy.yml",),
}
_BY_KIND: Mapping[str, Callable[[Mapping[str, Any], str], Converted]] = {
    "sailor.yml": _sailor, "app.json": _app_json, "kamal": _kamal,
}  # fmt: skip
