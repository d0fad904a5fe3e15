"""An app in maintenance: nginx answers 503 with a page instead of asking the app, whichever release is live.

A file beside the releases says so, and nginx checks for it at each request: nothing is reloaded or restarted. Meanwhile
the processes run, and deploys go on and are checked as usual, over the processes' own sockets.
"""

from __future__ import annotations

import html
import time
from contextlib import suppress

from receiver.errors import Rejected
from receiver.ledger import pool
from receiver.ledger.ledger import FILE_MODE, Ledger
from receiver.proxy import nginx
from receiver.system import disk

MESSAGE = "This site is being worked on. Please try again soon."
LONGEST = 500
# In the page's template.
PLACE = "{{ message }}"


def enable(ledger: Ledger, message: str = "") -> None:
    """Answer every request with the page from now on; it shows `message`. Repeatable: the last message counts."""
    if len(message) > LONGEST or not message.isprintable():
        raise Rejected(
            "This message cannot be shown.",
            holds="Nothing was changed.",
            hint=f"One line, {LONGEST} characters at most.",
        )
    paths = ledger.paths
    page = nginx.page(paths.layout, "maintenance").read_text(encoding="utf-8")
    text = html.escape(message or MESSAGE)
    disk.write_atomically(paths.maintenance_page, page.replace(PLACE, text).encode(), 0o644)
    disk.write_atomically(paths.maintenance, f"{message}\n".encode(), FILE_MODE)
    pool.look_everywhere(paths)


def disable(ledger: Ledger) -> bool:
    """Pass requests to the app again; False if it was not in maintenance."""
    if not disk.remove_file(ledger.paths.maintenance):
        return False
    disk.fsync_dir(ledger.paths.releases)
    # If the lock is held, the change that is under way does this at its end.
    with suppress(BlockingIOError), disk.locked(ledger.paths.app_lock, wait=False):
        ledger.rest()
    return True


def told(ledger: Ledger) -> str:
    """Since when the app is in maintenance, and the message for visitors; "" if it is not."""
    try:
        began = ledger.paths.maintenance.stat().st_mtime
        message = ledger.paths.maintenance.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(began))
    return f"since {since}: {message or MESSAGE}"
