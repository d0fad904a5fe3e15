"""A small wheel, made by hand: its program `hello` answers what it was made with."""

from __future__ import annotations

import io
import zipfile

from contract.runtimes.samples import SERVE


def wheel(
    version: str, mark: str, needs: str = "", name: str = "hello", scripts: str = "hello = hello:main\n"
) -> bytes:
    """Version `version` of the project, which needs the requirement `needs`; of the mark `broken` it does not start."""
    dist = f"{name}-{version}.dist-info"
    code = "raise SystemExit(3)" if mark == "broken" else SERVE.replace("open('mark', 'rb').read()", "MARK")
    serve = "\n".join(f"    {line}" for line in code.splitlines())
    files = {
        f"{name}/__init__.py": f"MARK = {mark.encode()!r}\n\n\ndef main():\n{serve}\n",
        f"{dist}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + f"Requires-Dist: {needs}\n" * bool(needs),
        f"{dist}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{dist}/entry_points.txt": f"[console_scripts]\n{scripts}",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
        record = "".join(f"{path},,\n" for path in [*files, f"{dist}/RECORD"])
        archive.writestr(zipfile.ZipInfo(f"{dist}/RECORD", (2026, 1, 1, 0, 0, 0)), record)
    return out.getvalue()
