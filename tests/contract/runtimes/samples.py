"""For each runtime a small project, what of it decides what is made, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.runtimes.toy import Toy
from receiver.runtimes.all import RUNTIMES
from receiver.runtimes.base import Runtime

FLASK = "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get('/')\ndef index():\n    return open('mark').read()\n"
PACKAGE = {"name": "one", "version": "1.0.0", "scripts": {"start": "node server.js"}, "dependencies": {"ms": "2.1.3"}}
LOCK: dict[str, Any] = {
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
    "http.createServer((_, answer) => answer.end(fs.readFileSync('mark'))).listen(process.env.PORT)\n"
)

# Python that serves what Node.js builds, by a package that the release does not keep.
BOTH = {
    "app.py": FLASK.replace("'mark'", "'dist/mark'"),
    "requirements.txt": "flask\ngunicorn\n",
    "build.js": "require('is-odd'); const fs = require('fs'); fs.mkdirSync('dist'); fs.copyFileSync('mark', 'dist/mark')\n",
    "package.json": json.dumps(
        {"name": "a", "version": "1.0.0", "scripts": {"build": "node build.js"}, "engines": {"node": "^22.11"},
         "dependencies": {"ms": "2.1.3"}, "devDependencies": {"is-odd": "3.0.1"}}
    ),
    "package-lock.json": json.dumps(
        {
            "name": "a", "version": "1.0.0", "lockfileVersion": 3, "requires": True,
            "packages": {
                "": {"name": "a", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}, "devDependencies": {"is-odd": "3.0.1"},
                     "engines": {"node": "^22.11"}},
                "node_modules/is-number": {
                    "version": "6.0.0", "dev": True,
                    "integrity": "sha512-Wu1VHeILBK8KAWJUAiSZQX94GmOE45Rg6/538fKwiloUu21KncEkYGPqob2oSZ5mUT73vLGrHQjKw3KMPwfDzg==",
                },
                "node_modules/is-odd": {
                    "version": "3.0.1", "dev": True, "dependencies": {"is-number": "^6.0.0"},
                    "integrity": "sha512-CQpnWPrDwmP1+SMHXZhtLtJv90yiyVfluGsX5iNCVkrhQtU3TQHsUWPG9wkdk9Lgd5yNpAg9jQEo90CBaXgWMA==",
                },
                "node_modules/ms": LOCK["packages"]["node_modules/ms"],
            },
        }
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """`files` are live without a Procfile and answer what the file `answers` says. `other` changes what is made, `code`
    does not. `wrong` wants a version that is not to be had; the refusal names the file or the version by `told`."""

    runtime: Runtime
    evidence: str
    files: Mapping[str, str]
    other: Mapping[str, str] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    told: str = ""
    hint: str = ""
    answers: str = "mark"


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
    "static": Sample(_named("static"), "index.html", {"index.html": ""}, answers="index.html"),
    "toy": Sample(
        Toy(), "toy.txt", {"toy.txt": "one\n"}, other={"toy.txt": "two\n"}, wrong={"toy.txt": "toy 2\n"},
        told="there is no toy 2", hint="Write toy 1", answers="",
    ),
}  # fmt: skip
