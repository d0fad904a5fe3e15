"""What an app may say to nginx for itself: read strictly, and written anew from what was understood."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_vhost import BLOG, PAGES, SETTINGS, STATE, release, same_as_golden

from receiver.errors import Rejected
from receiver.paths import Layout
from receiver.proxy import snippet
from receiver.proxy.snippet import Snippet
from receiver.proxy.vhost import vhost
from receiver.records import Corrupt, decode, encode
from receiver.serving import Serving

GOOD = (
    """
# Of all of the app.
add_header Permissions-Policy "camera=(), microphone=()";
gzip_types text/css application/json;
limit_rate 2m;

location /reports {   # slow ones
    proxy_read_timeout 300s;
    client_max_body_size 1g0;
}
""".replace("1g0", "500m")
    + """
location = /old { return 301 https://new.example.org$request_uri; }
location ^~ /feed/ { expires 10m; add_header X-Feed 'yes'; auth_basic off; }
"""
)
HOSTILE = (
    "include /etc/passwd;", "load_module x.so;", "access_log /etc/cron.d/x;", "alias /etc/;", "root /;",
    "proxy_pass http://169.254.169.254/;", "ssl_certificate /x;", "lua_code 'x';", "set $x y;", "if (-f /etc/shadow) {",
    "location ~ .* { return 403; }", "location / { return 403; }", "location /a { location /b { return 403; } }",
    "server { listen 22; }", "} server { listen 81; }", "return 200 $ssl_session_id;", "return 418;", "return 301 $uri;",
    "location /a { return 301 /b$request_uri; }", "location /a { return 301 https://x.org/$host; }",
    'add_header X "a$http_cookie";', 'add_header X "a\\" ; include /etc/passwd; #";', "add_header X 'a\"b';",
    "add_header X a; }", "gzip on", "gzip on;;", "gzip on; gzip off;", "gzip on on;", "gzip\n;", ";", "}", "{", '"";',
    "location /.shipit/hook/ { return 403; }", "location /.well-known/acme-challenge/x { return 403; }",
    "location /a/../b { return 403; }", "location /a { return 403; } location /a { return 404; }", "location /a {",
    "client_max_body_size 1m;", "proxy_set_header Host x;", "deny all;", "add_header Date x;", "x" * 20000, "gzip on;\0",
    "gzip \x1b[0m;", "gzip on;\x0b", "add_header X y;" * 101, "proxy_hide_header é;", "limit_rate 99999999999m;", "expires $x;", "keepalive_timeout 1h 2h;",
)  # fmt: skip


def rendered(found: Snippet, serving: Serving | None = None) -> str:
    live = replace(release(), serving=serving or Serving())
    return vhost(BLOG, STATE, live, SETTINGS, Layout(), pages=PAGES, capacity=8192, ipv6=False, snippet=found)


def test_what_is_taken_is_written_anew() -> None:
    found = snippet.parse(GOOD)
    same_as_golden("snippet.conf", rendered(found))
    assert snippet.parse(str(found)) == found
    assert decode(Snippet, encode(found), "x") == found


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_not_on_the_list_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(Rejected):
        snippet.parse(f"gzip_vary on;\n{text}")


def test_the_refusal_says_where_and_what_instead() -> None:
    with pytest.raises(Rejected, match="line 3: client_max_body_size") as wrong:
        snippet.parse("gzip on;\n\nclient_max_body_size 1m;")
    assert "proxy: {body: " in wrong.value.hint


@pytest.mark.parametrize(
    "rows",
    [[["", "include", "/x"]], [["/a;b", "gzip", "on"]], [["", "gzip", "on;x"]], [["", "gzip", "on"]] * 2, [[""]], [[1, 2]],
     "x", [["/a", "return", "301", "https://x.org/\n"]], [["~ .*", "gzip", "on"]]],
)  # fmt: skip
def test_a_bent_record_is_no_snippet(rows: object) -> None:
    raw = encode(Snippet())
    import json

    data = {**json.loads(raw), "rows": rows}
    data.pop("sum")
    with pytest.raises(Corrupt):
        decode(Snippet, json.dumps(data).encode(), "x")


def test_what_the_release_says_of_a_path_counts() -> None:
    found = snippet.parse("location /docs/ { return 403; } location = /old { return 410; }")
    text = rendered(found, Serving(redirects=(("/docs/*", "/d/*"), ("/old", "/new"))))
    assert text.count("location ^~ /docs/ {") == text.count("location = /old {") == 1


@given(st.text(alphabet=st.sampled_from("gzip on;{}\"'\\$#\n /=^~locatinreu301add_header Xx"), max_size=120))
def test_whatever_is_given_is_understood_as_it_is_shown_or_refused(text: str) -> None:
    try:
        found = snippet.parse(text)
    except Rejected:
        return
    assert snippet.parse(str(found)) == found
