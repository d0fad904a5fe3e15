"""Jobs of the embedded engine: a program that runs once, as another user, and leaves no process behind.

Between the agent and the job is a keeper, a fork of the agent in a session of its own. It is the subreaper of all that
the job starts, so at the end it can kill every process of it, daemons included. The rest of systemd's sandbox
(read-only paths, namespaces, system call filters) does not exist here; `Job.writable` is not enforced.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import select
import shutil
import signal
import sys
import termios
import time
from pathlib import Path

from receiver.engines.base import Job
from receiver.engines.embedded import limits, terminal
from receiver.errors import HostFault
from receiver.paths import Layout
from receiver.system import disk, family

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUT_OF_TIME, STOPPED, NOT_STARTED = 124, 128 + signal.SIGTERM, 126
GRACE = 5.0  # seconds from SIGTERM to SIGKILL, as TimeoutStopSec= of the job units


def run(
    layout: Layout, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool, memory: int, tasks: int
) -> int:
    """Run the job to its end; returns its exit code (128 + signal; 124 out of time; 143 stopped).

    `memory` (MiB) and `tasks` are the limits to set, 0 = none. Raises HostFault if its user does not exist.
    """
    try:
        user = pwd.getpwnam(job.user)
    except KeyError as error:
        raise HostFault(f"The user {job.user} does not exist.", hint=f"shipit doctor {job.app}") from error
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 71
        try:
            fds = tuple(
                os.dup(fd) if fd is not None else os.open(os.devnull, os.O_RDONLY) for fd in (stdin, stdout, stderr)
            )
            code = _Keeper(layout, job, user, fds, tty, memory, tasks).run()
        except BaseException as error:  # noqa: BLE001 - a fork must never return into its caller's code
            os.write(stderr, f"shipit: the job could not be run: {error}\n".encode())
        finally:
            os._exit(code)
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except InterruptedError:
            continue


def stop(layout: Layout, name: str) -> None:
    """End a running job and all it started; returns when it is gone. Nothing happens if there is none."""
    path = _file(layout, name)
    deadline = time.monotonic() + 2 * GRACE + 5
    told = 0
    while time.monotonic() < deadline:
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            disk.remove_file(path)  # its keeper was killed
            return
        except BlockingIOError:
            pid = int(os.read(fd, 20) or 0)
        finally:
            os.close(fd)
        if pid and pid != told:
            os.kill(pid, signal.SIGTERM)
            told = pid
        time.sleep(0.02)
    raise HostFault(f"The job {name} does not end.", hint="shipit doctor")


def _file(layout: Layout, name: str) -> Path:
    return layout.roots / "jobs" / name


class _Keeper:
    """One job, from the side of its keeper process."""

    def __init__(
        self,
        layout: Layout,
        job: Job,
        user: pwd.struct_passwd,
        fds: tuple[int, ...],
        tty: bool,
        memory: int,
        tasks: int,
    ) -> None:
        self.layout, self.job, self.user, self.fds, self.tty = layout, job, user, fds, tty
        self.memory, self.tasks = memory, tasks
        self.asked_to_stop = False

    def run(self) -> int:
        os.setsid()
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # When the agent's process for this connection ends, nobody wants the job any more.
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._close_what_is_not_ours()
        path = _file(self.layout, self.job.name)
        disk.roots_dir(path.parent, 0o700)
        lock = disk.open_lock(path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        credentials = self._credentials()
        try:
            return self._watch(credentials)
        finally:
            family.kill_all_below(os.getpid())
            if credentials:
                shutil.rmtree(credentials)
            disk.remove_file(path)

    def _stop(self, number: int, frame: object) -> None:
        self.asked_to_stop = True

    def _close_what_is_not_ours(self) -> None:
        """Close the agent's connection above all: a client that waits for its end must not wait for this job's
        children."""
        first = 0
        for fd in (*sorted(self.fds), 1 << 20):
            if first < fd:
                os.closerange(first, min(fd, 65536))
            first = fd + 1

    def _credentials(self) -> Path | None:
        """Put the config vars where systemd would (systemd.exec(5), LoadCredential), readable for the job's user
        only."""
        if self.job.config is None:
            return None
        uid, gid = self.user.pw_uid, self.user.pw_gid
        path = disk.roots_dir(self.layout.roots / "credentials", 0o711) / self.job.name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        disk.write_atomically(path / "config", self.job.config.read_bytes(), 0o400, owner=(uid, gid))
        with disk.opened_dir(path.parent) as parent:
            disk.make_dir(parent, path.name, 0o500, uid, gid)
        return path

    def _watch(self, credentials: Path | None) -> int:
        pty = terminal.Terminal(self.fds[0], self.fds[1]) if self.tty else None
        child = os.fork()
        if child == 0:
            try:
                self._become(credentials, pty)
            except BaseException as error:  # noqa: BLE001 - as above
                os.write(2, f"shipit: {self.job.argv[0]} could not be started: {error}\n".encode())
            finally:
                os._exit(NOT_STARTED)
        ended = os.pidfd_open(child)
        deadline = time.monotonic() + self.job.timeout if self.job.timeout else None
        kill_at: float | None = None
        verdict: int | None = None
        try:
            while not select.select([ended], [], [], 0)[0]:
                if verdict is None and (self.asked_to_stop or (deadline and time.monotonic() > deadline)):
                    verdict = STOPPED if self.asked_to_stop else OUT_OF_TIME
                    kill_at = time.monotonic() + GRACE
                    os.kill(child, signal.SIGTERM)
                if kill_at and time.monotonic() > kill_at:
                    os.kill(child, signal.SIGKILL)
                    kill_at = None
                if pty:
                    pty.pass_on(ended, 0.2)
                else:
                    select.select([ended], [], [], 0.2)
        finally:
            if pty:
                pty.restore()
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        return verdict if verdict is not None else code if code >= 0 else 128 - code

    def _become(self, credentials: Path | None, pty: terminal.Terminal | None) -> None:
        os.setsid()
        fds = self.fds
        if pty:
            slave = os.open(pty.name, os.O_RDWR)
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            fds = (slave, slave, slave)
            os.fchown(slave, self.user.pw_uid, -1)
        spare = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in fds]
        for target, fd in enumerate(spare):
            os.dup2(fd, target)
        os.closerange(3, 65536)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        limits.apply(memory=self.memory, tasks=self.tasks, file_size=limits.FILE_SIZE)
        os.umask(0o027)
        os.initgroups(self.user.pw_name, self.user.pw_gid)
        os.setgid(self.user.pw_gid)
        os.setuid(self.user.pw_uid)
        prctl = ctypes.CDLL(None).prctl
        # After changing the ids, which clears this setting: the job must not outlive a killed keeper.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os.chdir(self.job.cwd)
        env = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": self.user.pw_dir, "USER": self.user.pw_name}
        env |= {"LOGNAME": self.user.pw_name, "SHELL": self.user.pw_shell}
        if credentials:
            env["CREDENTIALS_DIRECTORY"] = str(credentials)
        if pty:
            env["TERM"] = os.environ.get("TERM", "xterm-256color")
        os.execve(self.job.argv[0], self.job.argv, env)
