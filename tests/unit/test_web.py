"""nginx's main configuration, where it is shipit's to change."""

from __future__ import annotations

import pytest

from receiver.setup.web import narrowed, widened

DEBIAN = "user www-data;\nevents {\n\tworker_connections 768;\n\t# multi_accept on;\n}\nhttp {}\n"


def test_nginx_gets_room_for_thousands_of_websockets_and_all_of_it_is_undone() -> None:
    wide = widened(DEBIAN)
    assert wide.startswith("worker_rlimit_nofile 20000; # shipit\n")
    assert "\tworker_connections 8192; # shipit: was 768\n" in wide
    assert widened(wide) == wide
    assert narrowed(wide) == DEBIAN


@pytest.mark.parametrize(
    "main",
    [
        DEBIAN.replace("768", "16384"),
        "worker_rlimit_nofile 5000;\n" + DEBIAN,
        DEBIAN.replace("worker_connections", "# worker_connections"),
        "events {}\n",
    ],
)
def test_what_an_admin_has_chosen_stays(main: str) -> None:
    assert widened(main) == main == narrowed(main)
