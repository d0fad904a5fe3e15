"""Everything of shipit that reads what somebody else wrote, as functions of bytes.

The promise of each: a value or a `Failure` whose every line is safe to print, never another exception, never a time
that grows faster than the input. `SEEDS` are inputs that reach the inside of a parser, `WORDS` what they are mutated
with and what is repeated to look for superlinear time.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from security.qcow2 import MBR, qcow2

from receiver import names, settings, wire
from receiver.cli.init_from import convert
from receiver.errors import Failure
from receiver.gate import keys, pubkey, push, refs, request
from receiver.inside import diskimage
from receiver.ledger import say
from receiver.manifest.tree import MAX_READ
from receiver.model import AppState, Change, Release, Status, decode_app_state, decode_release
from receiver.names import AppName
from receiver.ops.all import sections
from receiver.proxy import probe
from receiver.records import encode
from receiver.runtimes import go
from receiver.runtimes.build import build_plan
from receiver.runtimes.package import rpm
from receiver.runtimes.python import lockfile
from receiver.runtimes.read import read_manifest
from receiver.sources.git import commits, submodules
from receiver.sources.pull import status
from receiver.story import bill

Target = Callable[[bytes], object]
TARGETS: dict[str, Target] = {}
SEEDS: dict[str, tuple[bytes, ...]] = {}
WORDS: dict[str, tuple[bytes, ...]] = {}
Flood = Callable[[int], bytes]
FLOODS: dict[str, tuple[Flood, ...]] = {}
"""Inputs of a given size that are made to be slow, beside repeated words."""
LIMITS: dict[str, int] = {}
"""The largest input that gets past each target's own limit, in bytes."""


def target(
    *seeds: bytes, words: tuple[bytes, ...], limit: int, floods: tuple[Flood, ...] = ()
) -> Callable[[Target], Target]:
    """Registers a target under its function's name."""

    def register(function: Target) -> Target:
        name = function.__name__
        TARGETS[name], SEEDS[name], WORDS[name], LIMITS[name] = function, seeds, words, limit
        FLOODS[name] = floods
        return function

    return register


def promised(function: Target, data: bytes) -> None:
    """Run a target on an input; raises whatever breaks the promise."""
    try:
        function(data)
    except Failure as failure:
        for line in failure.lines():
            assert line.isprintable(), f"not safe to print: {line!a}"


class OneFile:
    """A commit of these files, as `receiver.manifest.Tree`."""

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self._content = content

    def files(self) -> Mapping[str, str]:
        return dict.fromkeys(self._content, "0" * 40)

    def links(self) -> Mapping[str, str]:
        return {}

    def read(self, path: str) -> bytes | None:
        found = self._content.get(path)
        return found if found is not None and len(found) <= MAX_READ else None


def planned(content: Mapping[str, bytes]) -> None:
    """What the gateway and the worker do with the files of a commit before the cage begins."""
    tree = OneFile(content)
    manifest = read_manifest(tree, sections())
    nowhere = Path("/nowhere")
    build_plan(manifest, tree, slug=nowhere, cache=nowhere, tools=nowhere, settings=settings.Settings())


def numbered(size: int) -> bytes:
    """Members of a JSON object, no two alike."""
    return b"".join(b'"%07d":1,' % i for i in range(size // 12))


def nested(depth: int, size: int) -> bytes:
    """A JSON array that lies so deep."""
    return b"[" * depth + b"1," * (size // 2 - depth - 8) + b"1" + b"]" * depth


# -- the gate


@target(
    b"git-receive-pack 'blog'", b"git upload-pack '/blog.git'", b"shipit config:set blog A='x y' \"B\\\"\" C=a\\ b",
    words=(b"'", b'"', b"\\", b" ", b"git-receive-pack '", b"''", b'"\\"', b"a "), limit=request.MAX,
)  # fmt: skip
def command(data: bytes) -> object:
    """SSH_ORIGINAL_COMMAND."""
    return request.parse(data)


@target(b"force", b"message=x", words=(b"message=", b"\n", b"no-deploy"), limit=65_000)
def push_option(data: bytes) -> object:
    return push.options({"GIT_PUSH_OPTION_COUNT": "1", "GIT_PUSH_OPTION_0": data.decode(errors="surrogateescape")})


@target(
    b"refs/heads/main", b"refs/tags/v1", b"refs/heads/feature/x.y",
    words=(b"refs/heads/", b"/", b".", b"..", b".lock", b"-", b"a/"), limit=65_000,
)  # fmt: skip
def pushed_ref(data: bytes) -> object:
    """The name of a pushed ref; git has checked that it has no blank, control character or newline."""
    name = bytes(byte for byte in data if byte > 32 and byte != 127)
    updates = refs.parse([b"0" * 40 + b" " + b"1" * 40 + b" " + name + b"\n"])
    state = AppState(AppName("blog"), 0.0, branch=names.Branch("deploy"))
    found = refs.deployed(updates, state)
    refs.check([u for u in updates if not found], state, push.Options(), None)  # type: ignore[arg-type]
    return found


KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@target(
    KEY, KEY + b" me@laptop\n", b'command="id" ' + KEY, b"ssh-rsa AAAAB3NzaC1yc2E=",
    words=(b"A", b"ssh-rsa ", b"AAAA", b" ", b"=", b"\n"), limit=16 * 1024,
)  # fmt: skip
def public_key(data: bytes) -> object:
    return pubkey.parse(data.decode(errors="surrogateescape"))


# -- the agent and the ledger

RELEASE = encode(Release(AppName("blog"), 1, Change.DEPLOY, Status.LIVE, "ann", 1.0))
STATE = encode(AppState(AppName("blog"), 1.0))


def unsummed(record: bytes) -> bytes:
    """As an older version wrote it: what is made of it gets past the checksum, to the inside of the parser."""
    return b"{\n" + record.split(b"\n", 2)[2]


@target(
    wire.encode_request(wire.Request(wire.Verb.SNAPSHOT_CONFIG, AppName("blog"), 2, base=1)),
    wire.encode_request(wire.Request(wire.Verb.RUN, AppName("blog"), 2, run="ab" * 20)),
    words=(b'"', b"[", b"{", b'{"a":', b'"app":', b"9", b"-", b"\\u", b"null", b"true", b"1e9", b","), limit=wire.MAX_REQUEST,
)  # fmt: skip
def agent_request(data: bytes) -> object:
    return wire.decode_request(data)


@target(
    json.dumps({"message": "m", "holds": "", "hint": "", "details": [], "exit": 1}).encode(),
    words=(b'"', b"[", b"{", b"9", b"null"), limit=2**20,
)  # fmt: skip
def agent_error(data: bytes) -> object:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return wire.decode_error(body) if isinstance(body, dict) else None


@target(unsummed(RELEASE), RELEASE, words=(b'"', b"[", b"{", b"9", b"null", b"[[", b'["web", 1],'), limit=4 * 2**20)
def release_record(data: bytes) -> object:
    return decode_release(data)


@target(unsummed(STATE), STATE, words=(b'"', b"[", b"{", b"9", b"null", b'"a",'), limit=4 * 2**20)
def app_record(data: bytes) -> object:
    return decode_app_state(data)


# -- what a commit holds

PROCFILE = b"web: python app.py\n"


@target(
    PROCFILE, b"wsgi: app:app\nworker: x # y\nrelease: z 'a # b'\n", b"web: gunicorn 'a:b(\"c\")' && true\n",
    words=(b"web: ", b"'", b'"', b"\\", b"\n", b" #", b" //", b"${", b"a:\n", b"w: x\n", b"a=1 ", b"; "), limit=64 * 1024,
)  # fmt: skip
def procfile(data: bytes) -> object:
    return planned({"Procfile": data})


@target(
    b"processes:\n  web:\n    count: 2\n    healthcheck: {path: /, status: 200}\n    memory: 1G\n",
    b"domains: [a.test]\nbuild:\n  config: [A]\n  command: x\n  root: r\nenv:\n  A: 1\nkeep: 3\n",
    words=(b"a: 1\n", b"- a\n", b"[", b"{", b"- ", b"&a ", b"*a ", b"!!x ", b"|\n ", b'"', b"'", b"? ", b"\n", b"a: {b: 1}\n", b"a,"),
    limit=64 * 1024,
)  # fmt: skip
def shipit_yml(data: bytes) -> object:
    return planned({"Procfile": PROCFILE, "shipit.yml": data})


@target(
    b'{"formation": {"web": {"quantity": 2}}, "healthchecks": {"web": [{"type": "startup", "path": "/"}]}}',
    b'{"scripts": {"dokku": {"predeploy": "x"}}, "x": [1, 2.5, -3e9]}',
    words=(b'"a":', b'"a":1,', b"[", b"{", b'{"a":', b'"', b"\\u", b"9", b",", b"[],", b"1,"), limit=256 * 1024,
    floods=(lambda size: b"{" + numbered(size) + b'"last":1,"last":1}', lambda size: nested(900, size)),
)  # fmt: skip
def app_json(data: bytes) -> object:
    return planned({"Procfile": PROCFILE, "app.json": data})


@target(
    b"# x\nffmpeg libpq5:amd64\n:repo:deb http://x y\n", words=(b"a\n", b"-", b"+", b"#", b":repo:", b"://"), limit=64 * 1024,
)  # fmt: skip
def aptfile(data: bytes) -> object:
    return planned({"Procfile": PROCFILE, "Aptfile": data})


@target(
    b"WAIT=2\nATTEMPTS=3\n/up  all well\nhttp://x/y z\n", words=(b"WAIT=9\n", b"/", b"//", b" ", b"{{", b"\n", b"#"),
    limit=64 * 1024,
)  # fmt: skip
def checks(data: bytes) -> object:
    return planned({"Procfile": PROCFILE, "CHECKS": data, ".env.example": data})


@target(
    b"apps:\n- process:\n    web: {cmd: a:b, workers: 2, server_name: x}\n    cron: ['* * * * * x']\n  env: {A: 1}\n",
    b"servers: {web: {hosts: [a, b], cmd: x}}\nproxy: {host: a, healthcheck: {path: /}}\nenv: {clear: {A: 1}, secret: [B]}\n",
    words=(b"a: 1\n", b"[", b"{", b"&a [", b"*a,", b"!!x ", b"- ", b"\n", b"'"), limit=256 * 1024,
)  # fmt: skip
def others_manifest(data: bytes) -> object:
    return [convert(OneFile({path: data}), path).files() for path in ("sailor.yml", "config/deploy.yml", "app.json")]


@target(
    b"flask==3.0 \\\n  --hash=sha256:0\n-r more.txt\n-e .\nx[y]>=1; python_version<'3'\n",
    b"git+https://h/x#egg=y\n./wheels/a.whl\nname @ file:///x\n-c https://h/c.txt\n",
    words=(b" ", b"\t", b"a", b"#", b" #", b"\\\n", b"-r ", b"-", b";", b" --", b"[", b"egg=", b"--hash=", b"a.", b"://"),
    limit=MAX_READ,
)  # fmt: skip
def requirements_txt(data: bytes) -> object:
    return planned({"requirements.txt": data, "app.py": b"from flask import Flask\napp = Flask(1)\n"})


@target(
    b'[project]\nname = "x"\nrequires-python = ">=3.11"\ndependencies = ["a>1"]\n[build-system]\n',
    b'[tool.poetry.dependencies]\npython = "^3.10"\n',
    words=(b"a.", b"a.b=1\n", b"[a]\n", b"[[a]]\n", b"[", b"{a=", b'"', b"'''", b'"".', b"[a.", b"1,", b"\n", b"a=1\n"), limit=MAX_READ,
)  # fmt: skip
def pyproject(data: bytes) -> object:
    return planned({"Procfile": PROCFILE, "pyproject.toml": data})


@target(
    b'version = 1\n[[package]]\nname = "a"\nsource = { editable = "." }\n',
    words=(b"source = { ", b"source = {", b"a", b"}", b'name = "', b"\n", b" editable"), limit=MAX_READ,
)  # fmt: skip
def uv_lock(data: bytes) -> object:
    return planned({"Procfile": PROCFILE, "pyproject.toml": b"[project]\n", "uv.lock": data})


@target(
    b"from flask import Flask\napp = Flask(__name__)\ndef create_app():\n  return Flask(1)\n",
    words=(b"(", b"-", b"a.", b"a(", b"x = ", b"if 1:\n ", b"\n", b"not ", b"lambda:", b"[", b"f'{", b"a if b else "), limit=256 * 1024,
)  # fmt: skip
def python_source(data: bytes) -> object:
    return planned({"requirements.txt": b"flask\ngunicorn\n", "app.py": data})


@target(b"3.12\n", b"python-3.11.2", words=(b"3.", b"#", b"\n", b"python"), limit=4096)
def python_version(data: bytes) -> object:
    return planned({"Procfile": PROCFILE, ".python-version": data, "runtime.txt": data})


@target(
    b"os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site.settings')",
    words=(b"DJANGO_SETTINGS_MODULE'", b" ", b"'", b", '", b"a."), limit=MAX_READ,
)  # fmt: skip
def manage_py(data: bytes) -> object:
    wsgi = {"site/wsgi.py": b"application = x()"}
    return planned({"manage.py": data, "requirements.txt": b"django\ngunicorn\n", **wsgi})


@target(b"https://h/x.git", b"git@h:x", b"ssh://u@h:22/x", b"../x", words=(b"a", b"/", b"@", b":", b"//"), limit=65_000)
def submodule(data: bytes) -> object:
    text = data.decode(errors="surrogateescape")
    path, _, url = text.rpartition("\n")
    return submodules.checked(path, url)


@target(
    b"tree 0\nauthor A <a@b> 1 +0\nencoding latin-1\n\nsubject\n\nbody", b"author A <a> 1\nencoding idna\n\n\xff",
    words=(b"encoding utf-16\n", b"encoding punycode\n", b"\n", b"author ", b"> ", b"\xff", b"a"), limit=2**20,
)  # fmt: skip
def commit(data: bytes) -> object:
    return commits.commit_of(names.oid("0" * 40), data)


# -- lock files, read inside the cage


@contextmanager
def project(content: Mapping[str, bytes]) -> Iterator[None]:
    """A working directory with these files."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in content.items():
            (Path(scratch) / name).write_bytes(data)
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(before)


@target(
    b'{"_meta": {"hash": {"sha256": "x"}, "sources": [{"url": "https://p/simple"}]}, '
    b'"default": {"a": {"version": "==1", "hashes": ["sha256:0"]}, "b": {"git": "https://h", "ref": "r"}}}',
    words=(b'"', b"[", b"{", b'{"a":', b"null", b"1"), limit=2**20,
)  # fmt: skip
def pipfile_lock(data: bytes) -> object:
    with project({"Pipfile.lock": data}):
        return lockfile.read(Path("Pipfile.lock"))


@target(
    b'[[package]]\nname = "a"\nversion = "1"\nfiles = [{hash = "sha256:0"}]\n[package.source]\ntype = "git"\n'
    b'[metadata]\ncontent-hash = "x"\n',
    words=(b"a.", b"[[package]]\n", b"[", b"{a=", b'"', b"\n", b"name = 1\n"), limit=2**20,
)  # fmt: skip
def poetry_lock(data: bytes) -> object:
    from receiver.runtimes.python.lock import poetry

    pyproject: dict[str, object] = {}
    fresh = f'\n[metadata]\ncontent-hash = "{poetry.content_hash(pyproject, groups=True)}"\n'.encode()
    with project({"poetry.lock": data + (b"" if b"[metadata]" in data else fresh), "pyproject.toml": b""}):
        return lockfile.read(Path("poetry.lock"))


# -- what programs say, and the server's own files


@target(
    b"plain\rover\x1b[31mred\x1b]0;title\x07", words=(b"\x1b[", b"\x1b]", b"\r", b"0", b" ", b"\x07", b"\xff", b"\t"), limit=2**20,
)  # fmt: skip
def output_line(data: bytes) -> object:
    text = say.clean(data.replace(b"\n", b""))
    assert all(char.isprintable() for char in text), f"not safe to print: {text!a}"
    return text


@target(
    b"domain: x.test\nhttp_port: 80\nbuild_environment:\n  A: b\n",
    words=(b"a: 1\n", b"[", b"{", b"&a [", b"*a,", b"!!python/x "),
    limit=16 * 1024,
)
def server_settings(data: bytes) -> object:
    with project({"shipit.yml": data}):
        return settings.load(Path("shipit.yml"))


@target(b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.0 500\r\n", words=(b"HTTP/1.1 ", b"\r\n", b"\n", b"200"), limit=2**20)
def healthcheck_answer(data: bytes) -> object:
    import socket
    import threading
    import time

    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = threading.Thread(target=answer, args=(theirs, data), daemon=True)
        writer.start()
        _, told = probe._ask(ours, "h", "http", "/", 200, "hello", probe._Reader(ours, time.monotonic() + 5))
        ours.close()
        writer.join()
    assert told.isprintable()
    return told


def answer(end: object, data: bytes) -> None:
    import socket
    from contextlib import suppress

    assert isinstance(end, socket.socket)
    with suppress(OSError):
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)


def rpm_seed() -> bytes:
    """The least that is an RPM package: a lead, an empty header of signatures, a header, one file without compression."""
    texts = {1000: b"hello", 1001: b"1.0", 1002: b"1", 1022: b"noarch", 1049: b"python3", 1125: b"gzip"}
    store, index = b"", b""
    for tag, text in texts.items():
        index += struct.pack(">IIII", tag, 6 if tag != 1049 else 8, len(store), 1)
        store += text + b"\0"
    name = b"usr/lib/systemd/system/hello.service\0"
    content = b"[Service]\nExecStart=/usr/bin/hello\n"
    fields = (1, 0o100644, 0, 0, 1, 0, len(content), 8, 1, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    cpio = head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
    cpio += b"070701" + b"0" * 88 + b"0000000b" + b"0" * 8 + b"TRAILER!!!\0\0\0\0"
    signatures = b"\x8e\xad\xe8\x01" + b"\0" * 12
    header = b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", len(texts), len(store)) + index + store
    return rpm.MAGIC + b"\x03\0\0\0" + b"\0" * 88 + signatures + header + gzip.compress(cpio, mtime=0)


@target(rpm_seed(), words=(b"\0", b"\xff\xff\xff\xff", b"zstd\0", b"xz\0", b"070701", b"\0\0\0\x08"), limit=2**20)
def rpm_package(data: bytes) -> object:
    return rpm.of_bytes(data)


@target(
    b"\x7fELF" + go.BUILT + b"\x08\x02" + b"\0" * 16 + b"\x06go1.22" + b"\x30" + b"0" * 16 + b"dep\tx.org/a\tv1.0\n" + b"1" * 16,
    words=(go.BUILT, b"\xff\xff\xff\xff\x7f", b"dep\t", b"=>\t", b"\n"), limit=2**20,
)  # fmt: skip
def go_program(data: bytes) -> object:
    return list(go.built(data))


@target(
    b'{"state": "success", "sha": "%s"}' % (b"a" * 40), b'[{"name": "a", "status": "failed"}]', b"success",
    b'{"check_runs": [{"name": "t", "status": "completed", "conclusion": "success"}]}',
    words=(b'"', b"[", b"{", b"null", b'"state":', b'"status":', b'{"check_runs": ['), limit=status.MOST,
    floods=(numbered, lambda size: nested(1000, size)),
)  # fmt: skip
def ci_status(data: bytes) -> object:
    return status.understood(data, names.oid("a" * 40))


@target(
    b'{"kind": "npm", "name": "a", "version": "1", "license": "", "tool": false, "more": [["a", "b"]]}\n',
    words=(b'"', b"[", b"{", b"\n", b"null", b'"more": [[', b"[]"), limit=2**20,
)  # fmt: skip
def listed_parts(data: bytes) -> object:
    return [bill.purl(part) for part in bill.parsed(data)]


@target(
    f"ssh-rsa AAAA foreign\n{keys.BEGIN}\nx\n{keys.END}\n".encode(),
    words=(keys.BEGIN.encode(), keys.END.encode(), b"\n", b"a"), limit=2**20,
)  # fmt: skip
def authorized_keys(data: bytes) -> object:
    return keys.merged(data.decode(errors="surrogateescape"), [])


@target(b'[{"name": "ann", "role": "admin", "apps": null, "key": ""}]', words=(b'"', b"[", b"{", b"null"), limit=2**20)
def known_keys(data: bytes) -> object:
    return keys._decode(data, Path("keys.json"))


@target(
    qcow2(), qcow2(version=2), qcow2(extensions=[(0x6803F857, b"x" * 48)]), MBR + bytes(2**12),
    words=(b"QFI\xfb", b"\x55\xaa", b"EFI PART", bytes(8), b"\xff" * 8, b"\0\0\0\0\0\2\0\0"), limit=2**20,
)  # fmt: skip
def machine_disk(data: bytes) -> object:
    with os.fdopen(os.memfd_create("disk"), "w+b") as file:
        file.write(data)
        file.flush()
        try:
            return diskimage.examined(file.fileno(), 0, len(data))
        except diskimage.Wrong as wrong:
            assert str(wrong).isprintable()
            return None
