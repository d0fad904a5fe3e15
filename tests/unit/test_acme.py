"""What is asked of certbot, and what is told of its answer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from receiver.inside import acme
from receiver.proxy.certificates import LIMITED, LONGEST_LIMITED, NEVER

WISH: dict[str, Any] = {
    "name": "shop.test", "directory": "https://ca.test:9443/directory", "email": "", "ca": "", "eab": [],
    "webroot": "/srv/challenges", "have": "", "environment": {}, "dns": None,
}  # fmt: skip
RFC2136 = {"plugin": "rfc2136", "wait": 5, "credentials": "secret"}


def test_a_name_is_proved_by_http_or_by_the_plugin_and_no_secret_is_in_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acme, "HOME", tmp_path)
    plain = acme.words("certbot", WISH, -1)
    assert plain[plain.index("--webroot-path") + 1] == "/srv/challenges" and "--authenticator" not in plain
    asked = acme.words("certbot", {**WISH, "name": "*.shop.test", "dns": RFC2136}, 7)
    said = " ".join(asked)
    assert "--authenticator dns-rfc2136 --dns-rfc2136-credentials /proc/self/fd/7" in said
    assert "--dns-rfc2136-propagation-seconds 5" in said and "--domain *.shop.test --cert-name _.shop.test" in said
    assert "secret" not in said and "--webroot" not in asked
    route53 = acme.words("certbot", {**WISH, "dns": {**RFC2136, "plugin": "route53", "wait": 0}}, 7)
    assert not [word for word in route53 if word.startswith("--dns-")]
    assert acme.environment({**WISH, "dns": RFC2136}, 7)["AWS_SHARED_CREDENTIALS_FILE"] == "/proc/self/fd/7"


def test_what_the_authority_answered_in_this_run_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acme, "HOME", tmp_path)
    assert acme.answered() == ("", "")
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs/letsencrypt.log"
    refused = '{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no"}\n'
    log.write_text(f"certbot version: 2.1.0\n{refused}")
    assert acme.answered() == ("rejectedIdentifier", "no")
    # certbot writes one run behind the other.
    log.write_text(f"certbot version: 2.1.0\n{refused}certbot version: 2.1.0\nall is well\n")
    assert acme.answered() == ("", "")
    limited = '{\n  "detail": "too many,\\n retry later", "type": "urn:ietf:params:acme:error:rateLimited", "status": 429\n}\n'
    log.write_text(f"certbot version: 2.1.0\n{refused}{limited}")
    assert acme.answered() == ("rateLimited", "too many, retry later")
    stumbled = "An unexpected error occurred:\nAttributeError: can't set attribute\n"
    assert acme.why(stumbled, "rejectedIdentifier", WISH).startswith("ca.test:9443 gives no certificates for this name")
    assert acme.why(stumbled, "rateLimited", WISH, "too many") == "ca.test:9443: too many"
    assert "/etc/shipit/acme-eab" in acme.why("Unable to register", "externalAccountRequired", WISH)
    missing = "certbot: error: unrecognized arguments: --dns-rfc2136-credentials /proc/self/fd/7"
    assert "apt-get install python3-certbot-dns-rfc2136" in acme.why(missing, "", {**WISH, "dns": RFC2136})


def test_a_failure_without_words_is_told_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(wish: dict[str, Any]) -> str:
        raise TimeoutError

    monkeypatch.setattr(acme, "certificate", fails)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(WISH) + "\n"))
    with pytest.raises(SystemExit) as ended:
        acme.main([])
    assert (ended.value.code, json.loads(capsys.readouterr().out)) == (1, {"error": "TimeoutError"})


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        ("retry after 1970-01-04 00:00:00 UTC: see https://letsencrypt.org/docs/rate-limits", 3 * 86400),
        ("Detail: too many, retry\n  after 1970-01-04T00:00:00Z", 3 * 86400),
        ("retry after 1970-01-01 01:00:00 UTC", LIMITED),
        ("retry after 1999-01-01 00:00:00 UTC", LONGEST_LIMITED),
        ("retry after 1970-99-99 00:00:00 UTC", LIMITED),
        ("too many", LIMITED),
    ],
)
def test_an_authority_that_has_had_enough_is_asked_at_the_time_that_it_names(said: str, pause: int) -> None:
    assert NEVER.again(0, "too many", limited=True, until=acme.until(said)).next == pause
    assert NEVER.again(0, "refused", limited=False).next < LIMITED
