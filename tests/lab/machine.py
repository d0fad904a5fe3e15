"""What a machine to test on is made of, whatever its PID 1 is: `host.py` has the two kinds.

Each is an overlay on a tree, with its own network namespace (so its own address, port 22 and port 80) and its own
control groups. `reboot` is a clean one, `power_cut` kills everything at once; both start the same disk again.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from . import tree as trees
from .background import Background
from .base import CACHE, LabError, Result, run
from .net import Slot, hierarchies

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHIVES = CACHE / "archives"
BOOT_SECONDS = 60.0
KEEP = bool(os.environ.get("SHIPIT_TEST_KEEP"))

Self = TypeVar("Self", bound="Machine")


class Machine:
    """What Host and Box share: a disk, a network, and a way in."""

    def __init__(self, tree: Path, name: str, *, limits: bool = False, own_disk: bool = False) -> None:
        self.tree = tree
        self.own_disk = own_disk
        self.name = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "host"
        self.limits = limits
        self.leader = 0
        self.environment: dict[str, str] = {}
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()
        self._slot = Slot.claim()
        self.ip = self._slot.ip

    @classmethod
    def boot(cls: type[Self], tree: Path, name: str = "host", *, limits: bool = False, own_disk: bool = False) -> Self:
        """A fresh machine on this tree, up when this returns. Use it as a context manager, or close it.

        `limits`: memory, task and CPU limits hold on control groups of version 1, too. `own_disk`: a file system
        of its own, where fsync counts and a power cut loses what nobody has synced; otherwise fsync does nothing.
        """
        machine = cls(tree, name, limits=limits, own_disk=own_disk)
        try:
            machine._make_disk()
            machine._mount()
            machine._slot.plug()
            machine._start()
            # A copy of a machine that was installed at another address: its apps answer at its own.
            named = f"s/^domain: [0-9-]*[.]sslip[.]io$/domain: {machine.ip.replace('.', '-')}.sslip.io/"
            machine.sh(f"cd /etc/shipit && sed -i '{named}' shipit.yml && sync shipit.yml .", check=False)
        except BaseException:
            machine.close()
            raise
        return machine

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.ip} leader {self.leader}>"

    # -- the disk

    @property
    def directory(self) -> Path:
        return self._slot.directory

    @property
    def root(self) -> Path:
        """The machine's disk seen from outside. Prefer read and write: absolute links lead astray here."""
        return self.directory / "root"

    @property
    def upper(self) -> Path:
        """What this machine has changed in its tree."""
        return self.directory / "disk/upper"

    def _make_disk(self) -> None:
        self._stack.enter_context(trees.in_use(self.tree))
        make_directory(self.directory / "root")
        make_directory(self.directory / "disk")
        make_directory(self.directory / "plain")
        if self.own_disk:
            image = self.directory / "image"
            with image.open("wb") as file:
                file.truncate(16 << 30)
            run(["mkfs.ext4", "-q", "-F", "-m", "0", image])
            self._mount_disk()
        make_directory(self.upper)
        make_directory(self.directory / "disk/work")
        self._share_archives()

    def _mount_disk(self) -> None:
        # What is not synced stays unsynced for the length of a test, and no rename is taken for an fsync.
        options = "loop,commit=600,noauto_da_alloc"
        run(["mount", "-t", "ext4", "-o", options, self.directory / "image", self.directory / "disk"])

    def _mount(self) -> None:
        below = ":".join(str(path) for path in trees.layers(self.tree))
        options = f"lowerdir={below},upperdir={self.upper},workdir={self.directory / 'disk/work'},redirect_dir=on"
        if not self.own_disk:
            options += ",volatile"
        run(["mount", "-t", "overlay", "shiplab", "-o", options, self.root])
        self._personalise()
        if self.own_disk:
            run(["sync", "-f", self.directory / "disk"])

    def _cut_disk(self) -> None:
        """The disk as it is when the current fails: without what only the page cache knows."""
        stop_without_writing(self.directory / "disk")
        run(["umount", self.root])
        run(["umount", self.directory / "disk"])
        # Machines that were started beside this one have copies of our mounts, and a mount of the same image would then
        # be the file system that was stopped. So the machine goes on with another file of the same bytes.
        image, same = self.directory / "image", self.directory / "image.same"
        run(["cp", "--sparse=always", image, same])
        same.rename(image)
        self._mount_disk()
        self._mount()

    def _personalise(self) -> None:
        etc = self.root / "etc"
        (etc / "resolv.conf").unlink(missing_ok=True)
        (etc / "resolv.conf").write_text(resolvers())
        if (etc / "machine-id").exists():
            return
        (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hostname").chmod(0o644)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n::1 localhost\n")

    def _share_archives(self) -> None:
        """Packages that an earlier host has downloaded are at hand; which ones are wanted, apt still decides."""
        suite = self._suite()
        if self.own_disk or not (ARCHIVES / suite).is_dir():
            return
        here = self.upper / "var/cache/apt/archives"
        make_directory(here, self.upper)
        for path in (ARCHIVES / suite).glob("*.deb"):
            os.link(path, here / path.name)

    def keep_archives(self) -> None:
        """Let later hosts find the packages that this one has downloaded."""
        if self.own_disk:
            return
        kept = ARCHIVES / self._suite()
        kept.mkdir(parents=True, exist_ok=True)
        for path in (self.upper / "var/cache/apt/archives").glob("*.deb"):
            with suppress(FileExistsError):
                os.link(path, kept / path.name)

    def _suite(self) -> str:
        bottom = trees.layers(self.tree)[-1].parent.name
        return next((suite for suite in trees.SUITES if f"-{suite}-" in bottom), "other")

    # -- running and ending

    def _nspawn_words(self) -> list[str]:
        raise NotImplementedError

    def _await_ready(self, notices: socket.socket, deadline: float) -> None:
        raise NotImplementedError

    def _start(self) -> None:
        groups = " ".join(str(group / "cgroup.procs") for group in self._slot.groups(limits=self.limits))
        address = self.directory / "notify"
        address.unlink(missing_ok=True)
        environment = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0" if self._v1() else "1",
            "NOTIFY_SOCKET": str(address),
        }
        words = [
            *("systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self._slot.name}"),
            *(f"--hostname={self.name}", "--register=no", "--keep-unit", "--notify-ready=yes"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only"),
            *(f"--network-namespace-path={self._slot.namespace}", "--capability=CAP_NET_ADMIN"),
            # No overlay: containers lay layers of their own over each other there.
            f"--bind={self.directory / 'plain'}:/mnt/plain",
            *self._nspawn_words(),
        ]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(address))
            with (self.directory / "console").open("ab") as console:
                self._nspawn = subprocess.Popen(
                    ["sh", "-c", f'for g in {groups}; do echo $$ >"$g"; done; exec "$@"', "sh", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    env=environment,
                    start_new_session=True,
                )
            self._await_ready(notices, time.monotonic() + BOOT_SECONDS)

    def _next_notice(self, notices: socket.socket, deadline: float) -> dict[str, str]:
        """What nspawn, or the machine's PID 1 through it, says next; nothing if it was silent for a moment."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            raise LabError(f"{self!r} did not start:\n{self.console()}")
        if time.monotonic() > deadline:
            raise LabError(f"{self!r} is not up after {BOOT_SECONDS:g} s:\n{self.console()}")
        notices.settimeout(0.2)
        try:
            said = notices.recv(4096).decode(errors="replace")
        except TimeoutError:
            return {}
        pairs = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        if "X_NSPAWN_LEADER_PID" in pairs:
            self.leader = int(pairs["X_NSPAWN_LEADER_PID"])
        return pairs

    def _v1(self) -> bool:
        return False

    def console(self, lines: int = 60) -> str:
        """The last lines of the machine's console, without colours."""
        path = self.directory / "console"
        text = path.read_text(errors="replace") if path.exists() else ""
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", text)
        return "\n".join(text.splitlines()[-lines:])

    def _await_end(self, timeout: float) -> int:
        if self._nspawn is None:
            raise LabError(f"{self!r} is not running")
        try:
            code = self._nspawn.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self!r} is not down after {timeout:g} s:\n{self.console()}") from None
        self._nspawn = None
        self.leader = 0
        return code

    def power_cut(self, *, back: bool = True) -> None:
        """Everything dies at once, unasked; then the same disk starts again, unless `back` is False."""
        self._kill()
        if self.own_disk:
            self._cut_disk()
        if back:
            self._start()

    def power_on(self) -> None:
        """Start again what power_cut(back=False) or power_off has left."""
        if self._nspawn is not None:
            raise LabError(f"{self!r} is on already")
        self._start()

    def _kill(self) -> None:
        if self._nspawn is None:
            return
        for pid in (self._nspawn.pid, self.leader):
            if pid > 0:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._nspawn.wait()
        self._slot.kill()
        self._nspawn = None
        self.leader = 0

    def close(self) -> None:
        """End the machine and forget its disk."""
        if KEEP and self._nspawn is not None and self._nspawn.poll() is None:
            print(f"\nkept for you: {self!r}; enter it with: nsenter -t {self.leader} -a bash -l")
            return
        self._kill()
        self._slot.release()
        self._stack.close()

    # -- the way in

    def argv(self, *words: str, user: str | None = None) -> list[str]:
        """The command line that runs `words` inside, in PID 1's control groups, with a login's environment."""
        if not self.leader:
            raise LabError(f"{self!r} is not running")
        name = user or "root"
        clean = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", "USER": name, "LOGNAME": name}
        clean |= {**trees.environment(), **self.environment}
        if name != "root":
            group, clean["HOME"] = self._account(name)
            words = ("setpriv", f"--reuid={name}", f"--regid={group}", "--init-groups", "--", *words)
        groups = " ".join(str(path / "cgroup.procs") for path in groups_of(self.leader))
        inside = ["env", "-i", *(f"{name}={value}" for name, value in clean.items()), *words]
        enter = f'for g in {groups}; do echo $$ >"$g"; done; exec nsenter --target {self.leader} --all -- "$@"'
        return ["sh", "-c", enter, "sh", *inside]

    def _account(self, user: str) -> tuple[str, str]:
        """The main group and the home of a user in there."""
        for line in self.read("/etc/passwd").splitlines():
            name, _, _, group, _, home, *_ = line.split(":")
            if name == user:
                return group, home
        raise LabError(f"{self!r} has no user {user}")

    def run(
        self,
        *words: str,
        user: str | None = None,
        check: bool = True,
        input: str | bytes | None = None,
        timeout: float = 120,
    ) -> Result:
        """One command, without a shell."""
        what = f"{self.name}: {' '.join(words)}"
        argv = self.argv(*words, user=user)
        return run(argv, input=input, check=check, timeout=timeout, what=what)

    def sh(
        self,
        script: str,
        *,
        user: str | None = None,
        check: bool = True,
        input: str | bytes | None = None,
        timeout: float = 120,
    ) -> Result:
        """A bash script (`set -e` is yours to say), run by root or by `user` in its home."""
        words = ("bash", "-c", f"cd ~ 2>/dev/null; {script}")
        what = f"{self.name}: {script}"
        argv = self.argv(*words, user=user)
        return run(argv, input=input, check=check, timeout=timeout, what=what)

    def start(self, script: str, *, user: str | None = None, stdin: int | IO[bytes] | None = None) -> Background:
        """A script that runs on while the test does something else."""
        return Background(self.argv("bash", "-c", f"cd ~ 2>/dev/null; {script}", user=user), stdin)

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """A file inside, its directories made where they lack."""
        quoted = shlex.quote(path)
        self.sh(f"install -D -m {mode:o} /dev/null {quoted} && cat >{quoted}", input=text)

    def read(self, path: str) -> str:
        return self.run("cat", path).out

    @contextmanager
    def without(self, path: str) -> Iterator[None]:
        """For the block, this file or directory is not there."""
        self.sh(f"mv {path} {path}.away", check=True)
        try:
            yield
        finally:
            self.sh(f"mv {path}.away {path}", check=True)

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path, check=False).ok

    def put(self, src: Path, dst: str) -> None:
        """Copy a file or a whole directory in, as root's; `dst` is its new name."""
        packed = io.BytesIO()
        target = dst.lstrip("/")
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(src, arcname=target, filter=as_root)
        self.run("tar", "-C", "/", "-xf", "-", input=packed.getvalue())

    def install(self, *words: str, key: bool = True, check: bool = True, timeout: float = 600) -> Result:
        """Put a clone of this repository at /root/shipit and run its install.sh, as the README says."""
        from . import snapshot

        if not self.exists("/root/shipit"):
            self.put(snapshot.clone(), "/root/shipit")
        if key:
            self.write("/root/admin.pub", snapshot.admin_key().with_suffix(".pub").read_text())
            words = ("--key", "/root/admin.pub", *words)
        return self.sh(f"cd /root/shipit && ./install.sh {shlex.join(words)}", check=check, timeout=timeout)


def make_directory(path: Path, top: Path | None = None) -> None:
    """A directory that everybody may read, whatever this process's umask is; so are those between it and `top`."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    while top is not None and path != top:
        path = path.parent
        path.chmod(0o755)


def stop_without_writing(mount: Path) -> None:
    """From now on this ext4 takes and writes nothing more: EXT4_IOC_SHUTDOWN, its journal not flushed."""
    handle = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, 0x8004587D, struct.pack("I", 2))
    finally:
        os.close(handle)


def as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def groups_of(pid: int) -> list[Path]:
    """The control groups of a process, as directories of this machine; only groups that the lab has made."""
    mounts = {}
    for kind, mount in hierarchies():
        mounts[{"unified": "", "named": "name=systemd"}.get(kind, mount.name)] = mount
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controller, group = line.split(":", 2)
        if controller in mounts and "/shiplab-" in group:
            found.append(mounts[controller] / group.lstrip("/"))
    return found


def unified_has_memory() -> bool:
    return any(
        kind == "unified" and "memory" in (mount / "cgroup.controllers").read_text().split()
        for kind, mount in hierarchies()
    )


def resolvers() -> str:
    """This machine's resolv.conf, or the one behind it when it names only a stub on the loopback."""
    own = Path("/etc/resolv.conf").read_text()
    behind = Path("/run/systemd/resolve/resolv.conf")
    if behind.exists() and all(word.startswith("127.") for word in re.findall(r"^nameserver\s+(\S+)", own, re.M)):
        return behind.read_text()
    return own
