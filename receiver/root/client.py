"""The other end of the agent's socket: one method a verb. Raises the Failure that the agent reports."""

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
    """A connection to the agent; closing it ends the agent's process and any job under way. Safe between threads:
    one call at a time."""

    def __init__(self, connection: socket.socket, path: Path) -> None:
        self._connection, self._path = connection, path
        self._lock = threading.Lock()
        self._rest = b""

    @classmethod
    def connect(cls, path: Path) -> Agent:
        """Connect; returns at once, only the first answer waits for the agent to have started. Raises HostFault."""
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
        """Another connection to the same agent, for when a call on this one was interrupted."""
        return Agent.connect(self._path)

    def close(self) -> None:
        self._connection.close()

    def reopen(self) -> None:
        """Connect again if this was closed. Raises HostFault."""
        if self.fileno() < 0:
            self._connection = Agent.connect(self._path)._connection

    def hang_up(self) -> None:
        """From another thread: end the call that is under way, and its job with it; that call raises HostFault."""
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
        """Have this process, the worker of vN, moved into a unit of its own: whoever ends its session does not end it."""
        # The kernel vouches for these (unix(7), SCM_CREDENTIALS): nobody can name another's process.
        who = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, wire.CREDENTIALS.pack(os.getpid(), os.getuid(), os.getgid()))
        self._call(Request(Verb.ADOPT, app, release), who=[who])

    def create_app(self, app: AppName) -> bool:
        """Make users, directories, slice and target; False when all of it was there."""
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
        """As whom builds that are asked for here from now on ask registries: {HOST: "USER:PASSWORD"}."""
        self._call(Request(Verb.LOG_IN, app, logins=logins))

    def build(self, app: AppName, release: int, source: int, output: int) -> BuildResult:
        """Build vN from the tar stream `source`; what the steps print goes to `output`. Code 124: out of time."""
        answer = self._call(Request(Verb.BUILD, app, release), (source, output))
        return BuildResult(int(answer["code"]), str(answer["digest"]))

    def list_parts(self, app: AppName, release: int, output: int) -> int:
        """Have what was installed for vN written to `output`, a line of JSON each; returns the exit code."""
        return int(self._call(Request(Verb.LIST_PARTS, app, release), (output,))["code"])

    def give(self, app: AppName, release: int, output: int, messages: int) -> int:
        """Have the image or the disk of vN written to `output`, as a file that can be deployed again; returns the exit
        code."""
        return int(self._call(Request(Verb.GIVE, app, release), (output, messages))["code"])

    def mount(self, app: AppName, release: int, output: int) -> BuildResult:
        """Have more of the app's data seen in the slug of vN, which is built and not live; build.json names it."""
        answer = self._call(Request(Verb.MOUNT, app, release), (output,))
        return BuildResult(int(answer["code"]), str(answer["digest"]))

    def measure(self, app: AppName) -> int:
        """How many bytes of the disk the app's data takes."""
        return int(self._call(Request(Verb.MEASURE, app))["used"])

    def install_packages(self, app: AppName, packages: Sequence[str], output: int) -> int:
        """Have apt install packages of Debian; raises Rejected when the settings do not allow one. Returns its exit code."""
        return int(self._call(Request(Verb.INSTALL_PACKAGES, app, packages=tuple(packages)), (output,))["code"])

    def install_podman(self, output: int) -> int:
        """Have apt install what runs container images; raises Rejected when the settings say that nobody does, or nothing
        here would run them. Returns apt's exit code."""
        return int(self._call(Request(Verb.INSTALL_PODMAN), (output,))["code"])

    def clear_cache(self, app: AppName) -> None:
        """Remove all that the app's builds have kept for later builds. Not while one runs."""
        self._call(Request(Verb.CLEAR_CACHE, app))

    def release_command(self, app: AppName, release: int, output: int) -> int:
        """Run vN's release command to its end; returns its exit code."""
        return int(self._call(Request(Verb.RELEASE_COMMAND, app, release), (output,))["code"])

    def check_files(self, app: AppName, releases: Collection[int]) -> list[int]:
        """Compare the slugs of these releases with what was built; returns those that differ."""
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
        """Make vN (0: none) what comes up after a reboot, and what runs by the clock, but what is suspended."""
        self._call(Request(Verb.BOOT_WITH, app, release))

    def stop(self, app: AppName, release: int, *, wait: bool) -> None:
        """Stop vN's processes and remove their units; without `wait` the drain goes on behind it."""
        self._call(Request(Verb.STOP, app, release, wait=wait))

    def restart(self, app: AppName, release: int, process: TypeName | None = None) -> None:
        """Restart vN's processes (of one type) in place, one after another."""
        self._call(Request(Verb.RESTART, app, release, process=process or TypeName("")))

    def processes(self, app: AppName) -> list[ProcessStatus]:
        """All processes of all releases of the app that are not over."""
        found = self._call(Request(Verb.PROCESSES, app))["processes"]
        # In the middle of an upgrade a newer agent may answer, which knows more.
        known = [{name: entry[name] for name in entry.keys() & _STATUS} for entry in found]
        return [ProcessStatus(**{**entry, "state": ProcessState(entry["state"])}) for entry in known]

    def in_use(self, app: AppName) -> set[int]:
        """The releases of which anything runs: processes, or a run by the clock."""
        found = self._call(Request(Verb.PROCESSES, app))
        return {*found["under_way"], *(entry["release"] for entry in found["processes"])}

    def remainders(self, app: AppName) -> set[int]:
        """The releases of which the engine has anything: processes, or definitions that a cut off stop has left."""
        found = self._call(Request(Verb.PROCESSES, app))
        return {*found["defined"], *(entry["release"] for entry in found["processes"])}

    def keep_warm(self, app: AppName, release: int) -> bool:
        """Let the processes of the release that vN replaced run on for `Release.warm` seconds, those that take requests;
        the others are stopped. False, with nothing done, where that cannot be."""
        return bool(self._call(Request(Verb.KEEP_WARM, app, release))["kept"])

    def warm(self, app: AppName) -> set[int]:
        """The releases whose processes are kept warm (as `Release.runs_as` has them)."""
        return {int(number) for number in self._call(Request(Verb.WARM, app))["releases"]}

    def cool(self, app: AppName) -> None:
        """Stop all that is kept warm."""
        self._call(Request(Verb.COOL, app))

    def look_every(self, app: AppName, seconds: int) -> None:
        """Have the machine look by itself whether what the app follows has moved; 0: no more."""
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
        """Stop what runs of vN, which did not go live, and remove all of it but its record and log."""
        self.stop(app, release, wait=False)
        self.prune(app, [release])

    def put_aside(self, app: AppName, release: int) -> None:
        """As `take_away`, but the slug stays: the next build may need no other environment."""
        self._call(Request(Verb.PUT_ASIDE, app, release))

    def cancel(self, app: AppName, release: int) -> None:
        """Stop vN's build, release command or check, if one runs (for another connection)."""
        self._call(Request(Verb.CANCEL, app, release))

    def certify(self, app: AppName, output: int, *, now: bool) -> list[tuple[str, bool, str]]:
        """Ask for the certificates that the app's names need (`now`: for all of them, whatever has failed lately).
        Returns what came of each name: whether it has its certificate, else why not."""
        answer = self._call(Request(Verb.CERTIFY, app, now=now), (output,))
        return [(str(one["name"]), bool(one["done"]), str(one["why"])) for one in answer["names"]]

    def add_certificate(self, app: AppName, pem: int) -> list[str]:
        """Install the certificate, chain and key that `pem` gives; returns the names it is for."""
        return [str(name) for name in self._call(Request(Verb.ADD_CERTIFICATE, app), (pem,))["names"]]

    def remove_certificate(self, app: AppName) -> bool:
        """Take the admin's own certificate away; False if there was none."""
        return bool(self._call(Request(Verb.REMOVE_CERTIFICATE, app))["removed"])

    def prove_by_dns(self, app: AppName, plugin: str, wait: int, credentials: int) -> None:
        """Have the app's names proved by DNS from now on, by this plugin of certbot's ("": by HTTP), which waits so long."""
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
        # As in gate/ask.py: sending nothing fails when the agent has answered and gone.
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
