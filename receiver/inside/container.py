"""How shipit calls podman: without a daemon, as the app's own user, with all of podman's state private to the unit.

`Store` is where an app's images are kept. A container's own files are not in it: they are in the private temporary
directory of its unit, above the layers of the store, and go with the unit. Root in the container is the app's user
outside. The container stays in the unit's control group, so systemd's limits hold for it.
Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import time

if False:  # typing is slow to import
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

PODMAN = "/usr/bin/podman"
# This command means: what the image itself starts.
OWN = "CMD"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONF = '[containers]\nkeyring=false\n[engine]\ncgroup_manager="cgroupfs"\nevents_logger="none"\n'
# A command without any special character needs no shell, which an image may lack.
PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./ -]*", re.ASCII)
# Variables that podman or its parts read themselves: an app's var of such a name goes only into the container.
STEERS = re.compile(
    r"_?(CONTAINERS?|PODMAN|BUILDAH|STORAGE|REGISTRY|XDG|DBUS|LD|GO|GLIBC|MALLOC|SSL_CERT|LISTEN|DOCKER|TMP|TEMP|LC|LANG"
    r"|NOTIFY|CATATONIT)[A-Z0-9_]*|HOME|PATH|TERM|TZ|USER|LOGNAME|GNUPGHOME|(?i:http|https|no|all)_proxy",
    re.ASCII | re.IGNORECASE,
)
STORED = "shipit-image.stored.json"  # in the slug (inside/image.py)
DATA = "/data"
PR_SET_CHILD_SUBREAPER = 36
# The port of a container that names none with EXPOSE.
PORT = 8080
# The healthcheck in a release's record for a process for which the app asked for none.
NO_CHECK = {"kind": "http", "path": "/", "status": 0, "content": ""}
QUIET = 3.0  # seconds in which a failing HEALTHCHECK is not reported: the program is just starting
# A network of its own, which reaches what the app's user can reach; host.containers.internal is the machine.
NETWORK = "slirp4netns:allow_host_loopback=true"
INITS = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit")


def scratch() -> str:
    """A new directory for podman's and the container's files: private to the unit (PrivateTmp=), on the disk if
    possible.

    overlayfs cannot be mounted with layers that are on an overlayfs itself. Files that an earlier start of the same
    unit left when it crashed are removed.
    """
    kinds = {}
    with open("/proc/self/mountinfo") as lines:  # noqa: PTH123
        for line in lines:
            words = line.split()
            kinds[words[4]] = words[words.index("-") + 1]
    place = "/tmp" if kinds.get("/var/tmp", "overlay") == "overlay" else "/var/tmp"
    left = [name for name in os.listdir(place) if name.startswith("podman-")]  # noqa: PTH208
    if left:
        import shutil

        for name in left:
            shutil.rmtree(f"{place}/{name}", ignore_errors=True)
    return f"{place}/podman-{time.time_ns() // 1000:x}"


class Store:
    """The image store of an app at `path`; making it makes this unit's scratch directory, too."""

    def __init__(self, path: str) -> None:
        self.path, self.scratch = path, scratch()
        os.makedirs(f"{self.scratch}/user", mode=0o700, exist_ok=True)  # noqa: PTH103
        with open(f"{self.scratch}/containers.conf", "w") as file:  # noqa: PTH123
            file.write(CONF)
        self.env = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": self.scratch,
            "TMPDIR": self.scratch,
            "XDG_RUNTIME_DIR": f"{self.scratch}/user",
            "CONTAINERS_CONF": f"{self.scratch}/containers.conf",
        }

    def argv(self, *words: str, run: bool = False) -> list[str]:
        """podman's command line: for the store itself, or (`run`) to run a container."""
        root = f"{self.scratch}/run" if run else self.path
        above = ["--storage-opt", f"overlay.imagestore={self.path}"] if run else []
        return [
            PODMAN, "--root", root, "--runroot", f"{self.scratch}/runroot", "--tmpdir", f"{self.scratch}/tmp",
            "--storage-driver", "overlay", "--storage-opt", "overlay.ignore_chown_errors=true", *above,
            # Its warnings are of no use here (no subordinate ids, no session bus); errors are printed all the same.
            "--log-level", "fatal", *words,
        ]  # fmt: skip

    def call(self, *words: str, quiet: bool = False, also: Mapping[str, str] | None = None) -> int:
        """Run podman on the store to its end, with `also` in its environment; returns its exit code. `quiet`: print
        only errors."""
        import subprocess

        out = subprocess.DEVNULL if quiet else None
        env = {**(also or {}), **self.env}
        return subprocess.call(self.argv(*words), env=env, stdin=subprocess.DEVNULL, stdout=out)

    def lines(self, *words: str) -> list[str]:
        """The lines that it prints; none if it fails."""
        import subprocess

        done = subprocess.run(self.argv(*words), env=self.env, stdin=subprocess.DEVNULL, stdout=-1, check=False)
        return done.stdout.decode(errors="replace").splitlines()


def command_words(command: str) -> list[str]:
    """The words after the image on podman's command line."""
    if command == OWN:
        return []
    return command.split() if PLAIN.fullmatch(command) else ["/bin/sh", "-c", command]


def mounts(data: str, workdir: str, storage: Sequence[Sequence[str]]) -> Iterator[str]:
    """podman's arguments that mount the app's data at its places below the image's WORKDIR."""
    top = workdir.rstrip("/") if re.fullmatch(r"/[A-Za-z0-9._/-]*", workdir) else ""
    for kept, place in storage:
        if not os.path.exists(f"{data}/{kept}"):  # noqa: PTH110
            # A mount needs the file; a database may not exist until the app first opens it.
            os.close(os.open(f"{data}/{kept}", os.O_WRONLY | os.O_CREAT, 0o660))
        yield f"--volume={data}/{kept}:{top}/{place}"


class Check:
    """The HEALTHCHECK of an image, as `healthcheck` returns it: run while a process starts, not later."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._words, self._timeout, self._most = [str(word) for word in said["words"]], said["timeout"], said["most"]

    def passes(self, run: Callable[[Sequence[str], float], tuple[int, str]], over: Callable[[], bool]) -> bool:
        """Whether it ends with 0 within the time that the image gives it; False at once when `over`."""
        began, told = time.monotonic(), ""
        while not over():
            code, answer = run(self._words, self._timeout)
            if code == 0:
                return True
            waited = time.monotonic() - began
            if answer != told and (waited > QUIET or waited > self._most):
                told = answer
                print(f"shipit: the image's HEALTHCHECK ends with {code}: {answer}", flush=True)
            if waited > self._most:
                print(
                    f"shipit: the image's HEALTHCHECK failed for {self._most:g} s, which is all that it allows.",
                    flush=True,
                )
                return False
            time.sleep(0.5)
        return False


def healthcheck(said: Any) -> dict[str, Any] | None:
    """An image's HEALTHCHECK (from its configuration in docker's format, times in ns): the command, the time limit of
    one run, and how long it may fail in all. None if it has none."""
    test = said.get("Test") if isinstance(said, dict) else None
    if (
        not isinstance(test, list)
        or len(test) < 2
        or not all(isinstance(word, str) and "\0" not in word for word in test)
    ):
        return None
    if test[0] not in ("CMD", "CMD-SHELL"):
        return None

    def seconds(key: str, default: float) -> float:
        told = said.get(key)
        return min(told, 3600 * 10**9) / 1e9 if isinstance(told, (int, float)) and told > 0 else default

    tries = said.get("Retries")
    tries = min(tries, 1000) if isinstance(tries, int) and tries > 0 else 3
    words = test[1:] if test[0] == "CMD" else ["/bin/sh", "-c", test[1]]
    most = seconds("StartPeriod", 0.0) + tries * seconds("Interval", 30.0)
    return {"words": words, "timeout": seconds("Timeout", 30.0), "most": min(most, 3600.0)}


class Container:
    """podman's arguments for one command of a release, in a container of its own.

    The values of `env` are not on the command line, where others could read them: podman takes them by name from its
    own environment. Variables that podman itself would read come from a file in its scratch directory.
    """

    def __init__(
        self,
        apps: str,
        app: str,
        slug: str,
        command: str,
        env: Mapping[str, str],
        storage: Sequence[Sequence[str]] = (),
        check: Mapping[str, Any] | None = None,
    ) -> None:
        """`check`: the process's healthcheck from its release's record; if the app chose none, the image's is used."""
        from receiver.inside import pretend

        pretend.one_user()
        with open(f"{slug}/{STORED}") as file:  # noqa: PTH123
            stored = json.load(file)
        self.port = int(stored["port"] or PORT)
        unsaid = check is not None and all(check.get(key) == said for key, said in NO_CHECK.items())
        self.check = Check(stored["check"]) if unsaid and stored.get("check") else None
        self.store = Store(f"{os.path.dirname(os.path.dirname(apps))}/images/{app}")  # noqa: PTH120
        env = {**env, "DATA_DIR": DATA, "PORT": str(self.port)}
        own = {key: value for key, value in env.items() if not STEERS.fullmatch(key)}
        path = f"{self.store.scratch}/env"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            for key in sorted(env.keys() - own.keys()):
                if "\n" in env[key]:
                    raise SystemExit(f"shipit: {key} has more than one line, which podman cannot give to a container.")
                file.write(f"{key}={env[key]}\n")
        self.env = {**own, **self.store.env}
        self._of_the_image = [stored["id"], *command_words(command)]
        self._options = [
            "--rm", "--pull=never", "--name=one", "--user=0:0", "--cgroups=disabled", "--uts=host", f"--network={NETWORK}",
            "--security-opt=no-new-privileges", "--no-healthcheck", "--http-proxy=false", "--image-volume=ignore",
            f"--volume={apps}/data:{DATA}", *mounts(f"{apps}/data", stored.get("workdir", ""), storage),
            f"--env-file={path}", *(f"--env={key}" for key in own),
            # PID 1 gets no signal for which it has no handler, so an init goes above the program.
            *(["--init"] if any(os.access(path, os.X_OK) for path in INITS) else []),
        ]  # fmt: skip

    def beside(self, *, entrypoint: bool) -> list[str]:
        """podman's command line for a command that runs once, to its end, with or without the image's ENTRYPOINT."""
        words = ["run", *self._options, "--log-driver=none", "--interactive"]
        words += [] if entrypoint else ["--entrypoint="]
        words += ["--tty"] if os.isatty(0) and os.isatty(1) else []
        return self.store.argv(*words, *self._of_the_image, run=True)

    def stay(self, path: str) -> int:
        """Run the process of a release and stay above it until it ends; returns its exit code. It takes requests from
        the socket `path` ("": none).

        podman itself ends when it has started the container, whose output is ours. conmon stays, which watches the
        container, as our child. SIGTERM is passed on to the container.
        """
        import ctypes
        import signal
        import subprocess

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        listener = listening(path) if path else None
        container = 0
        asked = False

        def ask(number: int, frame: object) -> None:
            nonlocal asked
            asked = True
            if container:
                try:  # noqa: SIM105 - contextlib is slow to import
                    os.kill(container, signal.SIGTERM)
                except ProcessLookupError:
                    pass

        signal.signal(signal.SIGTERM, ask)
        files = [f"--pidfile={self.store.scratch}/pid", f"--conmon-pidfile={self.store.scratch}/conmon"]
        words = ["run", "--detach", *self._options, "--log-driver=passthrough", *files, *self._of_the_image]
        code = subprocess.call(self.store.argv(*words, run=True), env=self.env, stdin=subprocess.DEVNULL)
        if code:
            return code
        with open(files[0].partition("=")[2]) as pid, open(files[1].partition("=")[2]) as watcher:  # noqa: PTH123
            container, conmon = int(pid.read()), int(watcher.read())
        if asked:
            ask(signal.SIGTERM, None)

        def over() -> bool:
            return asked or os.waitpid(conmon, os.WNOHANG)[0] == conmon

        # Requests wait at the socket until the image's own check has passed.
        if listener and self.check and not self.check.passes(self._inside, over):
            try:  # noqa: SIM105
                os.kill(container, signal.SIGTERM if asked else signal.SIGKILL)
            except ProcessLookupError:
                pass
        elif listener:
            stand_before(listener, container, self.port)
        try:
            while os.wait()[0] != conmon:
                pass
        except ChildProcessError:
            pass
        # podman's record of the exit code is gone with the container.
        return 0 if asked else 1

    def _inside(self, words: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run one more program in the container; returns its exit code and the end of its output."""
        import subprocess

        argv = self.store.argv("exec", "one", *words, run=True)
        try:
            done = subprocess.run(
                argv,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=-1,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 1, f"no end after {timeout:g} s"
        return done.returncode, done.stdout.decode(errors="replace").strip()[-500:]


def listening(path: str) -> socket.socket:
    """Bind the socket of a process and listen; connections wait in its backlog until the process accepts them."""
    import socket

    try:  # noqa: SIM105
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1024)
    return listener


def stand_before(listener: socket.socket, container: int, port: int) -> None:
    """Start the front (front.py) in the container's network, where the port is; no port of the machine is used."""
    from receiver.inside import front

    def stand(caller: int) -> None:
        join(container)
        front.stand_before(caller, listener, port)

    front.forked(stand)
    listener.close()


def join(pid: int) -> None:
    """Join the user and network namespaces of a process (setns(2))."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    # Open both before joining the first: after that we may not look at the process any more.
    opened = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")]
    for fd in opened:
        if libc.setns(fd, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)
