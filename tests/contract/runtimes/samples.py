"""For each runtime a small project, what of it decides what is made, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract.runtimes.toy import Toy
from receiver.runtimes.all import RUNTIMES
from receiver.runtimes.base import Runtime

FLASK = "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get('/')\ndef index():\n    return open('mark').read()\n"
PACKAGE = {"name": "one", "version": "1.0.0", "scripts": {"start": "node server.js"}, "dependencies": {"ms": "2.1.3"}}
LOCK = {
    "name": "one", "version": "1.0.0", "lockfileVersion": 3,
    "packages": {
        "": {"name": "one", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}},
        "node_modules/ms": {
            "version": "2.1.3", "resolved": "https://registry.npmjs.org/ms/-/ms-2.1.3.tgz",
            "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==",
        },
    },
}  # fmt: skip
SERVER = (
    "const http = require('http'), fs = require('fs'), ms = require('ms')\n"
    "http.createServer((_, answer) => answer.end(fs.readFileSync('mark'))).listen(process.env.PORT, '127.0.0.1')\n"
)


@dataclass(frozen=True)
class Sample:
    """`files` are live without a Procfile and answer what the file `mark` says. `other` changes what is made, `code`
    does not. `wrong` wants a version that is not to be had; the refusal names the file or the version by `told`."""

    runtime: Runtime
    evidence: str
    files: Mapping[str, str]
    other: Mapping[str, str] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    told: str = ""
    hint: str = ""


def _named(name: str) -> Runtime:
    return next(runtime for runtime in RUNTIMES if runtime.name == name)


SAMPLES = {
    "python": Sample(
        _named("python"), "requirements.txt",
        {"app.py": FLASK, "requirements.txt": "flask\ngunicorn\n"},
        other={"requirements.txt": "flask\ngunicorn\nitsdangerous\n"},
    ),
    "node": Sample(
        _named("node"), "package-lock.json",
        {"server.js": SERVER, "package.json": json.dumps(PACKAGE), "package-lock.json": json.dumps(LOCK),
         ".nvmrc": "v22\n"},
        other={".nvmrc": "lts/iron\n"},
        wrong={".nvmrc": "v4.2\n"}, told=".nvmrc: Node.js '4.2'", hint="node: 24",
    ),
    "toy": Sample(
        Toy(), "toy.txt", {"toy.txt": "one\n"}, other={"toy.txt": "two\n"}, wrong={"toy.txt": "toy 2\n"},
        told="there is no toy 2", hint="Write toy 1",
    ),
}  # fmt: skip
