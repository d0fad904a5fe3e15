"""The client of the agent's socket: one method for each verb. Raises the Failure that the agent reports."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from receiver import wire
from receiver.engines.base import ProcessState, ProcessStatus
from receiver.errors import HostFault
from receiver.names import AppName, ConfigKey, TypeName
from receiver.wire import Request, Verb, decode_error, encode_request

HINT = "shipit doctor"
CHUNK = 65536
_STATUS = {field.name for field in fields(ProcessStatus)}


@dataclass(frozen=True)
class BuildResult:
    """How a build ended; `digest` is that of the slug's tree, "" unless `code` is 0."""

    code: int
    digest: str


class Agent:
    """A connection to the agent; closing it ends the agent's process for it and its running job. Threads may share it:
    it makes one call at a time."""

    def __init__(self, connection: socket.socket, path: Path) -> None:
        self._connection, self._path = connection, path
        self._lock = threading.Lock()
        self._rest = b""

    @classmethod
    def connect(cls, path: Path) -> Agent:
        """Connect; returns at once, and only the first answer waits until the agent has started. Raises HostFault."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise HostFault(
                f"The agent does not answer ({error.strerror}).", holds="Nothing was changed.", hint=HINT
            ) from error
        return cls(connection, path)

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._connection.fileno()

    def anew(self) -> Agent:
        """Another connection to the same agent, for use when a call on this one was interrupted."""
        return Agent.connect(self._path)

    def close(self) -> None:
        self._connection.close()

    def reopen(self) -> None:
        """Connect again if this connection was closed. Raises HostFault."""
        if self.fileno() < 0:
            self._connection = Agent.connect(self._path)._connection

    def hang_up(self) -> None:
        """From another thread: end the running call, and with it its job; that call raises HostFault."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ping(self) -> None:
        """Returns when the agent has started and answers."""
        self._call(Request(Verb.PING))

    def adopt(self, app: AppName, release: int) -> None:
        """Have this process, the worker of vN, moved into a unit of its own, so that it outlives its session."""
        # The kernel checks these (unix(7), SCM_CREDENTIALS): a process can name only itself.
        who = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, wire.CREDENTIALS.pack(os.getpid(), os.getuid(), os.getgid()))
        self._call(Request(Verb.ADOPT, app, release), who=[who])

    def create_app(self, app: AppName) -> bool:
        """Make users, directories, slice and target; False if all of it was there."""
        return bool(self._call(Request(Verb.CREATE_APP, app))["created"])

    def destroy_app(self, app: AppName) -> None:
        """Stop and remove everything of the app, its data included."""
        self._call(Request(Verb.DESTROY_APP, app))

    def snapshot_config(
        self, app: AppName, release: int, base: int, set: Mapping[ConfigKey, str], unset: Sequence[ConfigKey]
    ) -> list[str]:
        """Freeze vN's config vars: those of `base` (0: none), changed. Returns the names whose value differs."""
        request = Request(Verb.SNAPSHOT_CONFIG, app, release, base=base, set=set, unset=tuple(unset))
        return [str(name) for name in self._call(request)["changed"]]

    def read_config(self, app: AppName, release: int) -> dict[ConfigKey, str]:
        """The config vars of a release; none for 0."""
        return dict(self._call(Request(Verb.READ_CONFIG, app, release))["config"])

    def log_in(self, app: AppName, logins: Mapping[str, str]) -> None:
        """Use these logins at registries for builds on this connection from now on: {HOST: "USER:PASSWORD"}."""
        self._call(Request(Verb.LOG_IN, app, logins=logins))

    def build(self, app: AppName, release: int, source: int, output: int) -> BuildResult:
        """Build vN from the tar stream `source`; what the steps print goes to `output`. Code 124: out of time."""
        answer = self._call(Request(Verb.BUILD, app, release), (source, output))
        return BuildResult(int(answer["code"]), str(answer["digest"]))

    def list_parts(self, app: AppName, release: int, output: int) -> int:
        """Write what was installed for vN to `output`, one line of JSON for each part; returns the exit code."""
        return int(self._call(Request(Verb.LIST_PARTS, app, release), (output,))["code"])

    def give(self, app: AppName, release: int, output: int, messages: int) -> int:
        """Write the image or the disk of vN to `output`, as a file that can be deployed again; returns the exit
        code."""
        return int(self._call(Request(Verb.GIVE, app, release), (output, messages))["code"])

    def mount(self, app: AppName, release: int, output: int) -> BuildResult:
        """Mount more of the app's data in the slug of vN, which is built and not live; build.json names the places."""
        answer = self._call(Request(Verb.MOUNT, app, release), (output,))
        return BuildResult(int(answer["code"]), str(answer["digest"]))

    def measure(self, app: AppName) -> int:
        """How many bytes of the disk the app's data takes."""
        return int(self._call(Request(Verb.MEASURE, app))["used"])

    def install_packages(self, app: AppName, packages: Sequence[str], output: int) -> int:
        """Have apt install Debian packages; returns its exit code. Raises Rejected if the settings forbid one."""
        return int(self._call(Request(Verb.INSTALL_PACKAGES, app, packages=tuple(packages)), (output,))["code"])

    def install_podman(self, output: int) -> int:
        """Have apt install podman; returns apt's exit code. Raises Rejected if the settings forbid it, or if no engine
        of this machine runs containers."""
        return int(self._call(Request(Verb.INSTALL_PODMAN), (output,))["code"])

    def clear_cache(self, app: AppName) -> None:
        """Empty the app's build cache. Not while a build runs."""
        self._call(Request(Verb.CLEAR_CACHE, app))

    def release_command(self, app: AppName, release: int, output: int) -> int:
        """Run vN's release command to its end; returns its exit code."""
        return int(self._call(Request(Verb.RELEASE_COMMAND, app, release), (output,))["code"])

    def check_files(self, app: AppName, releases: Collection[int]) -> list[int]:
        """Compare the slugs of these releases with what was built; returns the numbers of those that differ."""
        answer = self._call(Request(Verb.CHECK_FILES, app, releases=tuple(sorted(releases))))
        return [int(number) for number in answer["damaged"]]

    def start(self, app: AppName, release: int) -> None:
        """Start vN's formation beside whatever runs; returns when each process was executed."""
        self._call(Request(Verb.START, app, release))

    def check_command(self, app: AppName, release: int, process: TypeName, index: int, output: int) -> int:
        """Run the command healthcheck of one process once; returns its exit code."""
        request = Request(Verb.CHECK_COMMAND, app, release, process=process, index=index)
        return int(self._call(request, (output,))["code"])

    def boot_with(self, app: AppName, release: int) -> None:
        """Make vN (0: none) the release that starts at boot and by the clock, except suspended timers."""
        self._call(Request(Verb.BOOT_WITH, app, release))

    def stop(self, app: AppName, release: int, *, wait: bool) -> None:
        """Stop vN's processes and remove their units; without `wait` the drain goes on in the background."""
        self._call(Request(Verb.STOP, app, release, wait=wait))

    def restart(self, app: AppName, release: int, process: TypeName | None = None) -> None:
        """Restart vN's processes (of one type) in place, one after another."""
        self._call(Request(Verb.RESTART, app, release, process=process or TypeName("")))

    def processes(self, app: AppName) -> list[ProcessStatus]:
        """All processes of all releases of the app that have not ended."""
        found = self._call(Request(Verb.PROCESSES, app))["processes"]
        # During an upgrade the agent may be newer than this client, and send more fields.
        known = [{name: entry[name] for name in entry.keys() & _STATUS} for entry in found]
        return [ProcessStatus(**{**entry, "state": ProcessState(entry["state"])}) for entry in known]

    def in_use(self, app: AppName) -> set[int]:
        """The releases that have running processes, or a scheduled run."""
        found = self._call(Request(Verb.PROCESSES, app))
        return {*found["under_way"], *(entry["release"] for entry in found["processes"])}

    def remainders(self, app: AppName) -> set[int]:
        """The releases of which the engine has processes, or units that an interrupted stop has left."""
        found = self._call(Request(Verb.PROCESSES, app))
        return {*found["defined"], *(entry["release"] for entry in found["processes"])}

    def keep_warm(self, app: AppName, release: int) -> bool:
        """Keep the request-taking processes of the release that vN replaced for `Release.warm` seconds, and stop its
        others. False, with nothing done, if the engine cannot."""
        return bool(self._call(Request(Verb.KEEP_WARM, app, release))["kept"])

    def warm(self, app: AppName) -> set[int]:
        """The releases whose processes are kept warm, by the number `Release.runs_as`."""
        return {int(number) for number in self._call(Request(Verb.WARM, app))["releases"]}

    def cool(self, app: AppName) -> None:
        """Stop all processes that are kept warm."""
        self._call(Request(Verb.COOL, app))

    def look_every(self, app: AppName, seconds: int) -> None:
        """Have a timer check every `seconds` whether the repository that the app follows has changed; 0: no timer."""
        self._call(Request(Verb.LOOK_EVERY, app, seconds=seconds))

    def proxy(self, app: AppName) -> bool:
        """Make nginx serve the app as its ledger says; True if that took a reload."""
        return bool(self._call(Request(Verb.PROXY, app))["reloaded"])

    def run(self, app: AppName, release: int, run: str, fds: Sequence[int], *, tty: bool) -> int:
        """Run the one-off command releases/runs/RUN.json in vN on these three descriptors; returns its exit code."""
        return int(self._call(Request(Verb.RUN, app, release, run=run, tty=tty), fds)["code"])

    def prune(self, app: AppName, releases: Sequence[int]) -> None:
        """Remove slugs, config vars and units of these releases; refused for what the ledger still needs."""
        self._call(Request(Verb.PRUNE, app, releases=tuple(releases)))

    def take_away(self, app: AppName, release: int) -> None:
        """Stop vN, which did not go live, and remove all of it except its record and log."""
        self.stop(app, release, wait=False)
        self.prune(app, [release])

    def put_aside(self, app: AppName, release: int) -> None:
        """As `take_away`, but keep the slug: the next build may use its environment."""
        self._call(Request(Verb.PUT_ASIDE, app, release))

    def cancel(self, app: AppName, release: int) -> None:
        """Stop vN's build, release command or check, if one runs. Use another connection than the running call's."""
        self._call(Request(Verb.CANCEL, app, release))

    def certify(self, app: AppName, output: int, *, now: bool) -> list[tuple[str, bool, str]]:
        """Ask for the certificates that the app's names need (`now`: for all of them, even if that has just failed).
        Returns for each name whether it has its certificate, else why not."""
        answer = self._call(Request(Verb.CERTIFY, app, now=now), (output,))
        return [(str(one["name"]), bool(one["done"]), str(one["why"])) for one in answer["names"]]

    def add_certificate(self, app: AppName, pem: int) -> list[str]:
        """Install the certificate, chain and key read from `pem`; returns the names that it is for."""
        return [str(name) for name in self._call(Request(Verb.ADD_CERTIFICATE, app), (pem,))["names"]]

    def remove_certificate(self, app: AppName) -> bool:
        """Remove the admin's own certificate; False if there was none."""
        return bool(self._call(Request(Verb.REMOVE_CERTIFICATE, app))["removed"])

    def prove_by_dns(self, app: AppName, plugin: str, wait: int, credentials: int) -> None:
        """Prove the app's names by DNS from now on: `plugin` of certbot ("": by HTTP), which waits `wait` seconds for
        it."""
        self._call(Request(Verb.PROVE_BY_DNS, app, plugin=plugin, seconds=wait), (credentials,))

    def reconcile(self, app: AppName) -> list[str]:
        """Make processes, boot links and vhost equal to the ledger; returns what was done."""
        return [str(line) for line in self._call(Request(Verb.RECONCILE, app))["done"]]

    def _call(
        self, request: Request, fds: Sequence[int] = (), who: Sequence[tuple[int, int, bytes]] = ()
    ) -> dict[str, Any]:
        with self._lock:
            try:
                self._send(encode_request(request), fds, who)
                answer = json.loads(self._line())
            except (OSError, ValueError) as error:
                raise HostFault("The agent went away before it had answered.", hint=HINT) from error
        if "error" in answer:
            raise decode_error(answer["error"])
        result: dict[str, Any] = answer["ok"]
        return result

    def _send(self, line: bytes, fds: Sequence[int], who: Sequence[tuple[int, int, bytes]]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._connection.sendmsg([line], [*rights, *who])
        # As in gate/ask.py: send(2) also fails if the agent has answered already and is gone.
        if rest := line[sent:]:
            self._connection.sendall(rest)

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            part = self._connection.recv(CHUNK)
            if not part:
                raise ConnectionError("closed")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line
