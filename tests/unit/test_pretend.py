"""The filter of containers and their builds: what is answered with success, and for whom."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_OWNER = """
import os
from receiver.inside import pretend
before = os.stat("/").st_uid, os.getuid()
pretend.one_user()
os.chown("/", 12345, 12345)
os.setuid(12345)
print((os.stat("/").st_uid, os.getuid()) == before)
"""
# By `int 0x80`, as programs of 32 bits do it: uname(0) is an error (EFAULT), and has the number of another call's in 64.
_OLD = """
import ctypes, mmap
from receiver.inside import pretend
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\x53\\xb8" + (122).to_bytes(4, "little") + b"\\x31\\xdb\\xcd\\x80\\x5b\\xc3")
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(call(), flush=True)
pretend.one_user()
print(call())
"""


def said(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no table for this processor")
def test_changing_owner_or_user_succeeds_and_is_not_done() -> None:
    assert said(_OWNER) == ["True"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 has numbers of its own for 32 bits")
def test_a_program_of_32_bits_has_its_own_calls() -> None:
    before, *after = said(_OLD) or [""]
    if before != "-14":
        pytest.skip("this kernel runs no programs of 32 bits")
    assert after == ["-14"]
