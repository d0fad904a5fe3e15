"""RPM packages made by the real rpmbuild, and Debian packages by the real dpkg-deb with Ubuntu's compression."""

from __future__ import annotations

import subprocess
from pathlib import Path

from contract.runtimes.samples import SERVE, UNIT
from unit.test_pack import needs

SPEC = """\
Name: hello
Version: {version}
Release: 1
Summary: says hello
License: MIT
BuildArch: noarch
AutoReqProv: no
Requires: no-such-lib, /bin/sh, libnone.so.7()(64bit), python3
{more}

%description
Says hello.

%install
mkdir -p %{{buildroot}}/usr/share/hello %{{buildroot}}/usr/lib/systemd/system %{{buildroot}}/usr/bin
cp %{{_sourcedir}}/serve.py %{{buildroot}}/usr/share/hello/serve.py
cp %{{_sourcedir}}/hello.service %{{buildroot}}/usr/lib/systemd/system/hello.service
{install}

%post
touch /ran

%files
/usr/share/hello
/usr/lib/systemd/system/hello.service
{files}
"""


def rpm(place: Path, version: str = "1.0", serve: str = SERVE, *, payload: str = "w3.zstdio", more: str = "",
        install: str = "", files: str = "", source: bool = False) -> bytes:  # fmt: skip
    """A package as a distribution builds it; `payload` is how it is compressed, `install` and `files` add to it."""
    needs("rpmbuild")
    top = place / f"rpm-{version}-{payload}-{len(install)}"
    (top / "SOURCES").mkdir(parents=True, exist_ok=True)
    (top / "SOURCES/serve.py").write_text(serve)
    (top / "SOURCES/hello.service").write_text(UNIT)
    spec = top / "hello.spec"
    spec.write_text(SPEC.format(version=version, more=more, install=install, files=files))
    kind = "-bs" if source else "-bb"
    argv = ["rpmbuild", kind, "--quiet", "--define", f"_topdir {top}", "--define", f"_binary_payload {payload}",
            "--define", f"_source_payload {payload}", "--define", f"_tmppath {top}", str(spec)]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    [made] = (top / ("SRPMS" if source else "RPMS")).rglob("*.rpm")
    return made.read_bytes()


def ubuntu_deb(place: Path, version: str = "1.0", serve: str = SERVE) -> bytes:
    """A Debian package whose parts are compressed by zstd."""
    top = place / f"deb-{version}"
    for path, text in {
        "DEBIAN/control": f"Package: hello\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@example.org>\n"
        "Depends: no-such-lib\nDescription: hello\n",
        "usr/share/hello/serve.py": serve, "usr/lib/systemd/system/hello.service": UNIT,
    }.items():  # fmt: skip
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    made = place / f"hello-{version}.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Zzstd", "-b", str(top), str(made)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return made.read_bytes()
