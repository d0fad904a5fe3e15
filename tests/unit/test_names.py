from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import names
from receiver.errors import Rejected

BAD_APPS = ["", "-c", "--upload-pack=x", "..", ".", "a..b", "a/../b", "é", "a" * 27, "x.lock", "A", "-1", "a-", "a--b",
            "a\n", "a b", "a;id", "$(id)", "a_b"]  # fmt: skip


@pytest.mark.parametrize("text", BAD_APPS)
def test_a_bad_app_name_is_refused_and_never_cleaned(text: str) -> None:
    with pytest.raises(Rejected):
        names.app_name(text)


@pytest.mark.parametrize("text", ["a", "blog", "my-app2", "2048", "a" * 26])
def test_a_good_app_name_comes_back_as_it_is(text: str) -> None:
    assert names.app_name(text) == text
    assert len(f"build-{text}") <= 32


@given(st.text())
def test_any_text_is_a_name_or_one_refusal(text: str) -> None:
    for parse in (names.app_name, names.type_name, names.config_key, names.domain, names.key_name, names.branch):
        try:
            assert parse(text) == text
        except Rejected as refusal:
            assert "\n" not in refusal.message


@pytest.mark.parametrize("text", ["PATH", "A=B", "1A", "", "SHIPIT_APP", "A\n", "PORT"])
def test_a_config_var_that_would_change_the_machinery_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        names.config_key(text)


@pytest.mark.parametrize("text", ["LD_PRELOAD", "http_proxy", "no_proxy", "_x", "DATABASE_URL"])
def test_what_other_receivers_take_as_a_config_var_is_taken(text: str) -> None:
    assert names.config_key(text) == text


@pytest.mark.parametrize("text", ["web", "celery_beat", "a-b_c", "x" * 40])
def test_what_other_receivers_take_as_a_process_type_is_taken(text: str) -> None:
    assert names.type_name(text) == text


@pytest.mark.parametrize(("text", "says"), [("my.app", "my-app"), ("My_App", "my-app"), ("a" * 27, "32 characters")])
def test_an_app_name_that_is_refused_says_why_and_what_instead(text: str, says: str) -> None:
    with pytest.raises(Rejected) as refused:
        names.app_name(text)
    assert says in refused.value.hint


@pytest.mark.parametrize("text", ["-x", "a..b", "a.lock", "/a", "a/", "a//b", "HEAD~1", "a b", "@{", "a/.b"])
def test_a_branch_that_could_be_an_option_or_a_path_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        names.branch(text)


def test_a_release_is_written_with_or_without_v() -> None:
    assert names.release_number("v7") == names.release_number("7") == 7
    for bad in ("v0", "0", "v-1", "v07x", "", "v1234567890"):
        with pytest.raises(Rejected):
            names.release_number(bad)


@pytest.mark.parametrize(
    ("written", "dns"),
    [
        ("WWW.Example.org", "www.example.org"),
        ("example.org.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.Bücher.example.", "*.xn--bcher-kva.example"),
        ("https://example.org/path", "example.org"),
    ],
)
def test_a_domain_as_people_write_it_is_refused_with_how_dns_writes_it(written: str, dns: str) -> None:
    with pytest.raises(Rejected) as refused:
        names.domain(written)
    assert dns in refused.value.hint and names.domain(dns) == dns


@pytest.mark.parametrize("written", ["straße.example", "a_b.example", "exa mple", "ü" * 300, "..", ""])
def test_of_what_no_name_is_near_only_the_rule_is_told(written: str) -> None:
    with pytest.raises(Rejected) as refused:
        names.domain(written)
    assert "www.example.org" in refused.value.hint


@pytest.mark.parametrize(
    "line",
    ["credential_process = /bin/sh -c id", "web_identity_token_file = /etc/passwd", "endpoint_url = http://x", "[profile x]",
     "aws_access_key_id: x", " credential_process = x", "aws_access_key_id = a\n\tb = c", "ca_bundle=/x", "[default]x",
     "aws_access_key_id = a\rcredential_process = x"],
)  # fmt: skip
def test_credentials_for_amazon_are_keys_and_run_or_read_nothing(line: str) -> None:
    good = "# ours\n[default]\naws_access_key_id = AKIA\naws_secret_access_key=a/b+c==\r\n\n"
    assert names.aws_keys(good) == good
    with pytest.raises(Rejected, match="Line"):
        names.aws_keys(f"{good}{line}\n")
