"""The headers by which proxies tell an app about the client and the client's request.

The vhost sets X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Real-IP and X-Request-Id itself, and removes all
others of this kind, whoever sent them: an app must not read in one of them what a client made up. nginx cannot be told
"only these", since then it would need to know every header that an app may want; so the list here has to be complete.

A trusted proxy (`trusted_proxies`) is believed in one way: by the PROXY protocol, if the server's ports speak it; else
by X-Forwarded-*; else, if it sends none of these, by Forwarded.
"""

from __future__ import annotations

# From this version on nginx joins headers of one name. Older ones show only the first, which may be the client's own if
# a proxy adds a second one; with these, Forwarded is not read.
JOINS = (1, 23, 0)
# How many trusted proxies in a row are accepted in Forwarded.
DEPTH = 3

# Forwarded (RFC 7239, 4) as PCRE, for a string in double quotes. All quantifiers are possessive, so no header takes
# long. A header that does not have this form as a whole, or has a backslash, is ignored.
_GAP = "[ \\t]*+"
_PAIR = r"[a-z][0-9a-z-]*+=(?:\x22[^\x22\x5c]*+\x22|[^\x00-\x20,;=\x22\x5c]++)"
_ELEMENT = f"(?>{_PAIR}(?:{_GAP};{_GAP}{_PAIR})*+)"
_BEFORE = f"(?:{_PAIR}{_GAP};{_GAP})*"
_AFTER = f"(?={_GAP}(?:;|$))"


def element(last: int) -> str:
    """The pattern of one proxy's element of Forwarded, as the group `said`; `last`: 1 is the last element, 2 the one
    before."""
    behind = f"{_GAP},{_GAP}{_ELEMENT}" * (last - 1)
    return f"~*^(?:{_ELEMENT}{_GAP},{_GAP})*(?<shipit_found_{last}>{_ELEMENT}){behind}{_GAP}$"


def said(name: str, value: str) -> str:
    """The pattern of a parameter in an element; `value` has the group that is wanted."""
    return f"~*^{_BEFORE}{name}=\\x22?{value}\\x22?{_AFTER}"


def addresses(group: str) -> tuple[tuple[str, str], ...]:
    """Patterns for the address that an element is `for`, with or without a port: pairs of pattern and group."""
    port = "(?::[0-9]{1,5})?"
    return tuple(
        (said("for", pattern % f"{group}_{version}" + port), f"{group}_{version}")
        for version, pattern in ((4, r"(?<%s>[0-9]{1,3}(?:\.[0-9]{1,3}){3})"), (6, r"\[(?<%s>[0-9a-f:.]+)\]"))
    )


DROPPED = (
    # httpoxy: CGI programs see this header as HTTP_PROXY.
    "Proxy",
    "Forwarded",
    "Forwarded-For",
    "Forwarded-Host",
    "Forwarded-Proto",
    "X-Forwarded",
    "X-Forwarded-By",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-For-Original",
    "X-Forwarded-Method",
    "X-Forwarded-Path",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-Uri",
    "X-Forwarded-URL",
    "X-Forwarded-User",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "X-Original-Proto",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-HTTPS",
    "X-Proto",
    "X-Scheme",
    "X-Script-Name",
    "X-Url-Scheme",
    "Front-End-Https",
    "Url-Scheme",
    "X-ARR-SSL",
    "X-Client-IP",
    "X-Client-Scheme",
    "X-Cluster-Client-IP",
    "X-Originating-IP",
    "X-ProxyUser-Ip",
    "X-Remote-Addr",
    "X-Remote-IP",
    "Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "CF-Visitor",
    "CloudFront-Forwarded-Proto",
    "CloudFront-Viewer-Address",
    "Fastly-Client-IP",
    "Fastly-SSL",
    "Fly-Client-IP",
    "X-AppEngine-User-IP",
    "X-Azure-ClientIP",
    "Proxy-Client-IP",
    "WL-Proxy-Client-IP",
    "WL-Proxy-SSL",
)

# https://www.cloudflare.com/ips, as of 2023-09-28 (its list changes every few years).
CLOUDFLARE = (
    "173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "141.101.64.0/18", "108.162.192.0/18",
    "190.93.240.0/20", "188.114.96.0/20", "197.234.240.0/22", "198.41.128.0/17", "162.158.0.0/15", "104.16.0.0/13",
    "104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22", "2400:cb00::/32", "2606:4700::/32", "2803:f800::/32",
    "2405:b500::/32", "2405:8100::/32", "2a06:98c0::/29", "2c0f:f248::/32",
)  # fmt: skip


def networks(trusted: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses and networks in `trusted_proxies`, in nginx's form, each once."""
    found = [network for name in trusted for network in (CLOUDFLARE if name == "cloudflare" else (name,))]
    return tuple(dict.fromkeys(found))
