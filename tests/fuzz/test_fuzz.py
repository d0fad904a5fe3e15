"""Whatever anybody sends, pushes or leaves on the disk is a value or a refusal: never a traceback, never a stall.

The same targets under a coverage guided fuzzer, on demand: tests/README.md.
"""

from __future__ import annotations

import os
import resource
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import FLOODS, LIMITS, SEEDS, TARGETS, WORDS, promised

# For the largest input, of processor time: a parser that is quadratic takes minutes, one that is not takes 0.3 s.
SECONDS = 10
MEMORY = 2**30


def mutated(name: str) -> st.SearchStrategy[bytes]:
    """A seed with some pieces replaced by words that mean something to its parser, or by noise."""
    pieces = st.one_of(st.sampled_from(WORDS[name]), st.binary(max_size=8), st.just(b""))

    @st.composite
    def made(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(SEEDS[name]))
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(data)))
            end = min(len(data), start + draw(st.integers(0, 12)))
            data = data[:start] + draw(pieces) * draw(st.sampled_from((1, 1, 1, 2, 40))) + data[end:]
        return data

    return st.one_of(made(), st.binary(max_size=200))


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_is_a_value_or_a_refusal(name: str) -> None:
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(name))
    def holds(data: bytes) -> None:
        promised(TARGETS[name], data)

    holds()


def floods(name: str) -> list[bytes]:
    """What makes a parser go back and forth: each word repeated up to the limit, within a word and after a seed."""
    size = LIMITS[name] - 600
    found = [flood(size) for flood in FLOODS[name]]
    for word in WORDS[name]:
        repeated = (word * (size // len(word) + 1))[:size]
        found += [b"a" + repeated + b"x", SEEDS[name][0][:200] + repeated + b"x"]
    return found


def outcome(name: str, inputs: list[bytes], seconds: int = SECONDS) -> str:
    """What came of the inputs in a process of its own, which the kernel kills where Python cannot be interrupted."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        before = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
        resource.setrlimit(resource.RLIMIT_AS, (before + MEMORY, before + MEMORY))
        for i, data in enumerate(inputs):
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit = int(used.ru_utime + used.ru_stime) + seconds
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            os.write(writer, f"input {i}, {data[:40]!r}…{data[-20:]!r}\n".encode())
            try:
                promised(TARGETS[name], data)
            except BaseException as error:  # noqa: BLE001 - a fork never returns into pytest
                os.write(writer, repr(error)[:500].encode())
                os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as said:
        last = said.read().splitlines()[-2:]
    status = os.waitpid(child, 0)[1]
    if status == 0:
        return ""
    killed = os.WIFSIGNALED(status) and signal.Signals(os.WTERMSIG(status)).name
    return f"{name}, {' '.join(last)}: {killed or 'failed'}"


@pytest.mark.parametrize("name", TARGETS)
def test_the_largest_input_costs_no_more_than_its_size(name: str) -> None:
    assert outcome(name, floods(name)) == ""


def test_a_parser_that_stalls_is_found() -> None:
    import re

    TARGETS["stalls"] = lambda data: re.search(rb"(?:a|a)+$", data)
    try:
        assert outcome("stalls", [b"b", b"a" * 60 + b"b"], seconds=1).endswith("SIGXCPU")
    finally:
        del TARGETS["stalls"]
