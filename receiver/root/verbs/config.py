"""The verbs about config vars: a snapshot for each release."""

from __future__ import annotations

import json
from collections.abc import Sequence

from receiver.errors import NotFound, Rejected
from receiver.names import ConfigKey
from receiver.paths import AppPaths
from receiver.root.verbs.base import Answer, Desk
from receiver.system import disk
from receiver.wire import Request

CONFIG_MODE = 0o600
# execve(2) allows 128 KiB for NAME=VALUE; systemd allows 1 MiB for all credentials of a unit.
MAX_VALUE, MAX_CONFIG = 2**17 - 200, 2**20 - 2**16


class Config(Desk):
    """The config vars of a release."""

    def do_snapshot_config(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        if self._ledger(request.app).current_number() == request.release:
            raise Rejected(f"The config vars of the live release v{request.release} do not change.")
        base = read_config(paths, request.base)
        config = {key: value for key, value in base.items() if key not in request.unset} | dict(request.set)
        for key, value in config.items():
            if len(value.encode(errors="surrogatepass")) > MAX_VALUE:
                raise Rejected(f"The value of {key} is larger than {MAX_VALUE // 1024} KiB.")
        data = json.dumps(config, sort_keys=True).encode()
        if len(data) > MAX_CONFIG:
            raise Rejected(f"The config vars together are larger than {MAX_CONFIG // 1024} KiB.")
        disk.write_atomically(paths.release(request.release).config, data, CONFIG_MODE)
        self._then = lambda: self._make_ready(request)
        changed = {key for key in {*base, *config} if base.get(key) != config.get(key)}
        return {"changed": sorted(changed)}

    def do_read_config(self, request: Request, fds: Sequence[int]) -> Answer:
        return {"config": read_config(self._app(request.app), request.release)}

    def _make_ready(self, request: Request) -> None:
        release = self._known(request)
        # A release that builds is not prepared here: its start is asked for right away. A stopped app does not start.
        if not release.builds and not self._ledger(release.app).state().stopped:
            self.engines.expect_start(release)


def read_config(paths: AppPaths, number: int) -> dict[ConfigKey, str]:
    """The config vars of a release, none for 0; raises NotFound."""
    if not number:
        return {}
    try:
        config: dict[ConfigKey, str] = json.loads(paths.release(number).config.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"The config vars of {paths.name} v{number} are not kept any more.") from None
    return config
