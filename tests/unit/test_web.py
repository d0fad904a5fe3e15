"""nginx's main configuration, where it is shipit's to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.paths import Layout
from receiver.setup import web
from receiver.setup.places import Record
from receiver.setup.report import Step
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


def test_a_file_of_nginx_in_another_encoding_hinders_no_uninstall_and_keeps_its_bytes(tmp_path: Path) -> None:
    layout, before = Layout(tmp_path), b"# f\xfcr alle\r\n" + DEBIAN.encode()
    main = tmp_path / "etc/nginx/nginx.conf"
    main.parent.mkdir(parents=True)
    main.write_bytes(before)
    assert not web.remove(layout, Record(), Step())
    assert main.read_bytes() == before
    main.write_bytes(before.replace(b"connections 768;", b"connections 8192; # shipit: was 768"))
    assert web.remove(layout, Record(), Step())
    assert main.read_bytes() == before
