"""The values of `proxy:` and of `static:` with addresses: parsed or refused, since root's nginx reads them."""

from __future__ import annotations

import pytest

from receiver import serving
from receiver.errors import Rejected
from receiver.manifest import shipit_yml
from receiver.names import Domain
from receiver.serving import Serving

# What would end a word, a line or a block of nginx's configuration, or name a variable.
BAD = (
    "/a b",
    "/a;b",
    "/a{b",
    "/a}b",
    '/a"b',
    "/a'b",
    "/a$b",
    "/a\\b",
    "/a\nb",
    "/a#b",
    "/a/../b",
    "/.git",
    "",
    "//b",
    "/é",
)


@pytest.mark.parametrize("bad", BAD)
def test_no_address_says_more_than_a_path(bad: str) -> None:
    for parse in (
        lambda: serving.redirect(bad, "/x"),
        lambda: serving.redirect("/x", bad),
        lambda: (
            serving.redirect("/x", f"https://example.org{bad}x")
            if not bad.startswith("//") and bad
            else serving.redirect("/x", "")
        ),
        lambda: serving.asset(bad, "dist"),
        lambda: serving.asset("/a", bad),
    ):
        with pytest.raises(Rejected):
            parse()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("/*", "/x"), ("a", "/x"), ("/x", "a"), ("/a*", "/b*"), ("/a", "/b/*"), ("/a/*", "/a/b/*"), ("/a", "/a"), ("/a", "ftp://x/"),
        ("/a", "https://"), ("/a", "https://EXAMPLE.org/"), ("/.well-known/acme-challenge/*", "/x"), ("/a/*", "/a/b"),
    ],
)  # fmt: skip
def test_a_redirect_that_cannot_be_meant_is_refused(source: str, target: str) -> None:
    with pytest.raises(Rejected):
        serving.redirect(source, target)


@pytest.mark.parametrize("bad", ["10.0.0.1/8", "10.0.0", "all", "10.0.0.1; deny all", "::1%lo", "unix:"])
def test_only_addresses_and_networks_are_allowed(bad: str) -> None:
    with pytest.raises(Rejected):
        serving.network(bad)


@pytest.mark.parametrize("bad", ["/", "/assets/", "/.hidden", "/.well-known"])
def test_assets_have_an_address_of_their_own(bad: str) -> None:
    with pytest.raises(Rejected):
        serving.asset(bad, "dist")


@pytest.mark.parametrize("bad", [".", "..", "a/../b", "/etc", ".venv", "a/.git"])
def test_assets_are_a_directory_of_the_release(bad: str) -> None:
    with pytest.raises(Rejected):
        serving.asset("/assets", bad)


def test_shipit_yml_says_it_with_its_lines() -> None:
    said = shipit_yml.parse(
        b"static: {/assets: public/assets, /img: img}\nproxy:\n  redirects: {/old: /new}\n  canonical: example.org\n"
        b"  allow: [192.0.2.7, 10.0.0.0/8, '2001:db8::/32']\n  rate: 10\n"
    )
    assert said.static == ""
    assert said.serving == Serving(
        assets=(("/assets", "public/assets"), ("/img", "img")), redirects=(("/old", "/new"),), rate=10,
        canonical=Domain("example.org"), allow=("192.0.2.7/32", "10.0.0.0/8", "2001:db8::/32"),
    )  # fmt: skip
    for line, told in (
        (b"static: {/assets: ../x}", "shipit.yml:1"),
        (b"static: {/a: x, /a/b: y}", "/a/b is served"),
        (b"static: {/a: x}\nproxy: {redirects: {/a/*: /b}}", "/a/ is served"),
        (b"proxy:\n  allow: [everybody]", "shipit.yml:2"),
        (b"proxy: {canonical: '*.example.org'}", "wildcard"),
    ):
        with pytest.raises(Rejected) as refused:
            shipit_yml.parse(line + b"\n")
        assert told in "\n".join(refused.value.lines()), refused.value.lines()
