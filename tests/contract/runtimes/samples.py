"""For each runtime a small project, what of it decides what is made, and what it refuses."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
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


GO = """package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	place, _ := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	for {
		one, _ := place.Accept()
		one.Read(make([]byte, 4096))
		mark, _ := os.ReadFile("mark")
		fmt.Fprintf(one, "HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n%s", len(mark), mark)
		one.Close()
	}
}
"""
# A gem by the name of the server that a Rack app is started with, as small as one can be.
PUMA = """#!/usr/bin/env ruby
require 'socket'
place = UNIXServer.new(ARGV[1].delete_prefix('unix://'))
loop do
  one = place.accept
  one.readpartial(4096)
  mark = File.read('mark')
  one.write("HTTP/1.1 200 OK\\r\\nContent-Length: #{mark.bytesize}\\r\\nConnection: close\\r\\n\\r\\n#{mark}")
  one.close
end
"""


def gem(name: str, program: str) -> bytes:
    """A gem of one program: a tar of its specification and of its files, each packed."""

    def tar(files: Mapping[str, bytes]) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as made:
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), 0o755
                made.addfile(entry, io.BytesIO(content))
        return packed.getvalue()

    said = (
        f"--- !ruby/object:Gem::Specification\nname: {name}\nversion: !ruby/object:Gem::Version\n  version: 1.0.0\n"
        "platform: ruby\nauthors: [nobody]\nbindir: bin\ndate: 2024-01-01 00:00:00.000000000 Z\ndependencies: []\n"
        f"executables: [{name}]\nfiles: [bin/{name}]\nrequire_paths: [lib]\nrubygems_version: 3.3.0\nspecification_version: 4\n"
        "summary: one program\nlicenses: [MIT]\nhomepage: https://example.org\n"
        "required_ruby_version: !ruby/object:Gem::Requirement\n  requirements:\n  - - '>='\n"
        "    - !ruby/object:Gem::Version\n      version: '0'\n"
    )
    data = tar({f"bin/{name}": program.encode()})
    return tar({"metadata.gz": gzip.compress(said.encode(), mtime=0), "data.tar.gz": gzip.compress(data, mtime=0)})


def gem_lock(*names: str) -> str:
    specs = "".join(f"    {name} (1.0.0)\n" for name in names)
    wants = "".join(f"  {name}\n" for name in names)
    return f"GEM\n  remote: https://rubygems.org/\n  specs:\n{specs}\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n{wants}\nBUNDLED WITH\n   2.3.15\n"


SERVE = (
    "import http.server, os\n\nclass Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n"
    "        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(open('mark', 'rb').read())\n\n"
    "http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n"
)
UNIT = "[Unit]\nDescription=x\n[Service]\nExecStart=/usr/bin/python3 /usr/share/hello/serve.py\n"


def deb(version: str = "1.0", serve: str = SERVE, **more: str) -> str:
    """A Debian package without compression, which is text: /usr/share/hello/serve.py and a unit that starts it."""

    def packed(files: Mapping[str, str]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, text in files.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size, info.mode = len(text.encode()), 0o755 if name.endswith("inst") else 0o644
                archive.addfile(info, io.BytesIO(text.encode()))
        return out.getvalue()

    control = (
        f"Package: hello\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@example.org>\nDepends: no-such-lib\n"
    )
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar": packed({"control": control + "Description: hello\n", "postinst": "#!/bin/sh\ntouch /ran\n"}),
        "data.tar": packed({"usr/share/hello/serve.py": serve, "usr/lib/systemd/system/hello.service": UNIT, **more}),
    }
    heads = (
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(part):<10}`\n".encode() + part for name, part in parts.items()
    )
    return (b"!<arch>\n" + b"".join(heads)).decode()


@dataclass(frozen=True)
class Sample:
    """`files` are live without a Procfile and answer what the file `answers` says. `other` changes what is made, `code`
    does not. `wrong` wants a version that is not to be had; the refusal names the file or the version by `told`. `apt`: what the server must have of Debian."""

    runtime: Runtime
    evidence: str
    files: Mapping[str, str | bytes]
    other: Mapping[str, str | bytes] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    told: str = ""
    hint: str = ""
    apt: str = ""
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
    "deb": Sample(
        _named("deb"), "hello_1.0_all.deb", {"hello_1.0_all.deb": deb()}, other={"hello_1.0_all.deb": deb("1.1")},
    ),
    "static": Sample(_named("static"), "index.html", {"index.html": ""}, answers="index.html"),
    "site": Sample(
        _named("site"), "mkdocs.yml",
        {"mkdocs.yml": "site_name: one\ntheme: {name: null, custom_dir: theme}\n", "theme/main.html": "{{ page.markdown }}"},
        other={"docs/requirements.txt": "mkdocs<1.6\n"}, answers="docs/index.md",
    ),
    "go": Sample(
        _named("go"), "go.mod", {"go.mod": "module example.org/one\n\ngo 1.19\n", "main.go": GO},
        other={"go.mod": "module example.org/one\n\ngo 1.99\n"},
        wrong={"go.mod": "module example.org/one\n\ngo 12.0\n"}, told="go.mod: there is no Go 12.0", hint="go 1.24",
    ),
    "php": Sample(
        _named("php"), "public/index.php", {"public/index.php": "<?php readfile('../mark');\n"}, apt="php-cli php-fpm"
    ),
    "ruby": Sample(
        _named("ruby"), "Gemfile.lock",
        {"config.ru": "run App\n", "Gemfile": "source 'https://rubygems.org'\ngem 'puma'\n",
         "Gemfile.lock": gem_lock("puma"), "vendor/cache/puma-1.0.0.gem": gem("puma", PUMA)},
        other={"Gemfile.lock": gem_lock("puma", "other")}, apt="ruby ruby-bundler",
    ),
    "toy": Sample(
        Toy(), "toy.txt", {"toy.txt": "one\n"}, other={"toy.txt": "two\n"}, wrong={"toy.txt": "toy 2\n"},
        told="there is no toy 2", hint="Write toy 1", answers="",
    ),
}  # fmt: skip
