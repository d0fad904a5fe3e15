"""The targets under atheris, which learns from the coverage of receiver/ what to try next. On demand: tests/README.md.

    SHIPIT_FUZZ_SECONDS=60 python tests/fuzz/coverage.py [TARGET ...]

Each target runs in a process of its own. An input that breaks a promise ends it, is shown, and is left in the
directory that is named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

SLOW_SECONDS, MEMORY_MIB = 20, 2048


def main(words: list[str]) -> int:
    if words[:1] == ["--one"]:
        one(words[1], words[2:])
    import atheris  # noqa: F401 - told here, and not once a target

    from fuzz.targets import SEEDS, TARGETS, WORDS

    seconds = int(os.environ.get("SHIPIT_FUZZ_SECONDS", "60"))
    found = 0
    for name in words or TARGETS:
        kept = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
        (kept / "corpus").mkdir()
        for i, seed in enumerate(SEEDS[name]):
            (kept / "corpus" / str(i)).write_bytes(seed)
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS[name])
        (kept / "words").write_text("".join(f'"{word}"\n' for word in escaped))
        limits = [f"-max_total_time={seconds}", f"-timeout={SLOW_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"]
        argv = [sys.executable, __file__, "--one", name, f"-dict={kept}/words", f"-artifact_prefix={kept}/", *limits]
        done = subprocess.run(
            [*argv, str(kept / "corpus")], capture_output=True, text=True, errors="replace", check=False
        )
        last = [line for line in done.stderr.splitlines() if line.startswith("#") and "cov:" in line][-1:]
        print(f"{name}: {'held' if done.returncode == 0 else 'BROKEN'}  {' '.join(last)}", flush=True)
        if done.returncode:
            found += 1
            print("\n".join(done.stdout.splitlines()[-30:] + done.stderr.splitlines()[-15:]), f"\nleft in {kept}")
    return 1 if found else 0


def one(name: str, words: list[str]) -> None:
    """Fuzz one target with these options of libFuzzer; never returns."""
    import importlib
    import pkgutil

    import atheris

    with atheris.instrument_imports(include=["receiver"]):
        from fuzz.targets import TARGETS, promised
        from receiver import gate, manifest, runtimes

        # Also what is imported only where it is used.
        for package in (manifest, runtimes, gate):
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                importlib.import_module(module.name)
    atheris.Setup([name, *words], lambda data: promised(TARGETS[name], data))
    atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
