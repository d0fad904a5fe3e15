"""rsync's end on the server: which words it is started with, and what it could do with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.errors import Rejected
from receiver.gate.request import parse
from receiver.gate.rsync import RsyncRequest
from receiver.system.landlock import confined
from receiver.system.run import run

GOOD = "rsync --server -logDtprze.iLsfxCIvu --delete . blog/"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "rsync --server -vlogDtprze.iLsfxCIvu . blog/",
        "rsync --server -vnlogDtprze.iLsfxCIvu --delete-after . blog",
        "rsync --server -lrze.iLsfxCIvu . ./blog/",
        "rsync --server -logDtpre.iLsfxCIvu --log-format=%i --stats --partial . /blog/",
        "rsync --server -logDtpre.iLsfxCIvu --compress-level=3 --compress-choice=zstd --timeout=30 --bwlimit=100 . blog/",
    ],
)
def test_what_an_rsync_client_sends_for_a_directory_is_taken(text: str) -> None:
    asked = parse(text.encode())
    assert isinstance(asked, RsyncRequest) and asked.app == "blog" and asked.dry == ("-vn" in text)
    assert " ".join(asked.options) == text.split(" . ")[0].removeprefix("rsync --server ")


OPTIONS = r"""
--sender --daemon --config=/tmp/x --rsh=id --rsync-path=id -eid --log-file=/var/lib/shipit/home/x --files-from=/etc/passwd
--backup-dir=/var/lib/shipit --temp-dir=/tmp --partial-dir=/tmp --link-dest=/ --copy-dest=/ --compare-dest=../..
--write-devices --copy-devices --no-munge-links --munge-links --super --fake-super --inplace --append --append-verify
--remove-source-files --write-batch=/tmp/x --only-write-batch=/tmp/x --read-batch=/tmp/x --mkpath --chmod=u+s --copy-as=root
--secluded-args --protect-args --usermap=*:root --groupmap=*:root --chown=root --iconv=x --exclude-from=/etc/shadow
--include-from=/x --password-file=/x --early-input=/x --suffix=/../x --backup --copy-links --keep-dirlinks --relative
--delete=1 --timeout --timeout=$(id) --log-format=%o;id --debug=ALL/../x;y --compress-choice=../x\0 -- - -s -A -X -b -K -L -k
-R -M--log-file=x -logDtprze.i;id -T/tmp -f -f.x -essh -e -logDtpreid -logDtpre/x --server --dele --ti=3
""".split()  # noqa: SIM905 - readable so


@pytest.mark.parametrize("word", OPTIONS)
def test_any_other_option_is_refused(word: str) -> None:
    for text in (
        f"rsync --server -logDtpre.iLsfxCIvu {word} . blog/",
        f"rsync --server {word} -logDtpre.iLsfxCIvu . blog/",
    ):
        with pytest.raises(Rejected):
            parse(text.encode())


@pytest.mark.parametrize(
    "rest",
    [
        "", ".", "blog/", ". ", ". .", ". ..", ". blog/..", ". blog/../other", ". ../blog", ". /var/lib/shipit/", ". blog/sub",
        ". blog/ other/", ". blog other", ".. blog/", "/ blog/", "blog/ .", ". //blog/", ". ././blog", ". ~", ". ~/blog",
        ". blog/*", ". $HOME", ". -blog", ". --sender", ". Blog", ". all/", ". blog/.", ". 'blog'/x", ". blog:x", ". .git",
    ],
)  # fmt: skip
def test_any_other_place_is_refused(rest: str) -> None:
    with pytest.raises(Rejected):
        parse(f"rsync --server -logDtpre.iLsfxCIvu {rest}".encode())


@pytest.mark.parametrize(
    "text", ["rsync", "rsync --version", "rsync -az . blog/", "rsync  -e.L --server . blog/", "rsync --server"]
)
def test_no_other_rsync_is_started(text: str) -> None:
    with pytest.raises(Rejected):
        parse(text.encode())


def test_whoever_is_confined_writes_in_one_directory_and_nowhere_else(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (inside / "link").symlink_to(outside)
    script = (
        "echo a > new; ln -s x y; mkdir d; mv new d/new; echo b > link/b; echo c > ../out/c; cat ../out/secret; "
        "cat /proc/self/environ; rm ../out/secret; exit 0"
    )
    done = confined(inside, lambda: run(["sh", "-c", script], cwd=inside))
    if done.out:
        pytest.skip("this kernel has no landlock")
    assert (
        sorted(path.name for path in inside.iterdir()) == ["d", "link", "y"] and (inside / "d/new").read_text() == "a\n"
    )
    assert [path.name for path in outside.iterdir()] == ["secret"] and done.err.count("Permission denied") >= 4, done
    # Only what was started has the fence.
    (outside / "free").write_text("x")
