"""What forges answer about a commit, as their documentation has it, and what of it is understood."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver.errors import HostFault, Rejected
from receiver.names import Oid
from receiver.sources.pull.status import Verdict, checked_url, told, understood

COMMIT = Oid("ab" * 20)
DONE = {"name": "build", "status": "completed", "conclusion": "success"}


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        # GitHub and Gitea: the combined status.
        ({"state": "success", "sha": COMMIT, "total_count": 2, "statuses": []}, Verdict.SUCCESS),
        ({"state": "pending", "sha": COMMIT, "total_count": 0}, Verdict.PENDING),
        ({"state": "failure", "sha": COMMIT}, Verdict.FAILURE),
        ({"state": "error"}, Verdict.FAILURE),
        ({"state": "", "sha": COMMIT, "statuses": None}, Verdict.PENDING),
        ({"state": "warning"}, Verdict.SUCCESS),
        # GitHub: check runs.
        ({"total_count": 0, "check_runs": []}, Verdict.PENDING),
        ({"check_runs": [DONE, {"name": "lint", "status": "completed", "conclusion": "skipped"}]}, Verdict.SUCCESS),
        ({"check_runs": [DONE, {"name": "test", "status": "in_progress", "conclusion": None}]}, Verdict.PENDING),
        ({"check_runs": [DONE, {"name": "test", "status": "completed", "conclusion": "timed_out"}]}, Verdict.FAILURE),
        ({"check_runs": [{"name": "t", "status": "queued"}, {**DONE, "conclusion": "cancelled"}]}, Verdict.FAILURE),
        # GitLab: a commit, its statuses, pipelines of it.
        ({"id": COMMIT, "status": "success", "last_pipeline": {"status": "success"}}, Verdict.SUCCESS),
        ({"id": COMMIT, "status": None}, Verdict.PENDING),
        ([], Verdict.PENDING),
        ([{"name": "a", "status": "success"}, {"name": "b", "status": "running"}], Verdict.PENDING),
        ([{"name": "a", "status": "failed", "allow_failure": True}, {"name": "b", "status": "success"}], Verdict.SUCCESS),
        ([{"name": "a", "status": "canceled"}], Verdict.FAILURE),
        ([{"id": 2, "sha": COMMIT, "status": "success"}, {"id": 1, "sha": COMMIT, "status": "failed"}], Verdict.SUCCESS),
        # Gitea and Forgejo: statuses, the newest first.
        ([{"context": "ci", "status": "success"}, {"context": "ci", "status": "pending"}], Verdict.SUCCESS),
        ([{"context": "ci", "state": "pending"}, {"context": "ci", "state": "success"}], Verdict.PENDING),
        # Whatever else.
        ("success\n", Verdict.SUCCESS), ("Pending", Verdict.PENDING), ("failed", Verdict.FAILURE), ("", Verdict.PENDING),
    ],
)  # fmt: skip
def test_what_is_said_of_a_commit_is_understood(said: Any, verdict: Verdict) -> None:
    raw = said if isinstance(said, str) else json.dumps(said)
    assert understood(raw.encode(), COMMIT)[0] is verdict


@pytest.mark.parametrize(
    "raw",
    [b"<html>success</html>", b"{}", b'{"ok": true}', b"[1, 2]", b"null", b"7", b"\xff\xfe", b"success story", b"[" * 100_000,
     json.dumps({"state": "success", "sha": "cd" * 20}).encode(), b'{"state": {"a": 1}}', b'"neutral"'],
)  # fmt: skip
def test_what_is_no_status_of_this_commit_is_none(raw: bytes) -> None:
    with pytest.raises(HostFault):
        understood(raw, COMMIT)


def test_no_answer_says_more_than_a_line() -> None:
    evil = {"check_runs": [{"name": "a\n\x1b[2J" + "x" * 500, "status": "completed", "conclusion": "boom"}]}
    why = understood(json.dumps(evil).encode(), COMMIT)[1]
    assert why.isprintable() and len(why) < 150


def test_a_url_is_asked_by_https_about_one_commit_and_its_secrets_are_not_shown() -> None:
    url = "https://git.example.org/api/v1/repos/a/b/commits/{commit}/status?token=s3cret"
    assert checked_url(url) == url and "s3cret" not in told(url)
    for bad in (
        "https://x.org/status",
        "http://x.org/{commit}",
        "https://a:b@x.org/{commit}",
        "https:///{commit}",
        "https://x/{commit} y",
    ):
        with pytest.raises(Rejected):
            checked_url(bad)
