"""What each verb of the agent does. Root's work: every path, name and id is derived here from typed fields.

A slug and what an app wrote are never opened; the ledger's records are decoded strictly (model.py) before use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any

from receiver import settings
from receiver.engines.all import Engines
from receiver.engines.base import Job, job_name
from receiver.errors import Failure, HostFault, NotFound, Rejected, as_root
from receiver.ledger.ledger import Ledger
from receiver.model import CheckKind, Release
from receiver.names import AppName, ConfigKey, build_may_see
from receiver.paths import (
    BUILDER,
    DISK,
    HANDED_IMAGE,
    IMAGE,
    LAUNCH,
    PARTS,
    PYTHON,
    REGISTRIES,
    AppPaths,
    Layout,
    app_user,
    build_user,
)  # fmt: skip
from receiver.root import accounts, reconcile
from receiver.system import apt, disk
from receiver.wire import Request

CONFIG_MODE = 0o600
# execve(2): one string of the environment has 128 KiB with its name; systemd: all credentials of a unit 1 MiB.
MAX_VALUE, MAX_CONFIG = 2**17 - 200, 2**20 - 2**16
MAX_TREE = 2_000_000  # entries of a slug, environment included
PARTS_TIMEOUT, GIVE_TIMEOUT = 60, 3600
MEASURE_TIMEOUT = 600

Answer = dict[str, Any]
# Runs while a job does; stops the job when whoever asked for it has gone.
Watch = Callable[[str], AbstractContextManager[None]]


class Verbs:
    """One verb a method, each with a request that has been decoded; returns what goes into `ok`, or raises Failure."""

    def __init__(self, layout: Layout, engines: Engines, watch: Watch) -> None:
        self.layout, self.engines, self.watch = layout, engines, watch
        # What to do when the answer is out.
        self._then: Callable[[], None] | None = None
        self._logins: dict[AppName, Mapping[str, str]] = {}

    def do(self, request: Request, fds: Sequence[int]) -> Answer:
        """Do what is asked; `fds` are as many as wire.FDS says."""
        work: Callable[[Request, Sequence[int]], Answer] = getattr(self, f"do_{request.verb.value}")
        return work(request, fds)

    def ahead(self) -> None:
        """After an answer: do of the next request what its sender would have to wait for."""
        then, self._then = self._then, None
        # What is wrong is told by that request.
        with suppress(Failure, OSError):
            if then:
                then()

    def do_ping(self, request: Request, fds: Sequence[int]) -> Answer:
        return {}

    def do_adopt(self, request: Request, fds: Sequence[int]) -> Answer:
        self.engines.adopt(request.app, request.release, request.sender)
        return {}

    def do_create_app(self, request: Request, fds: Sequence[int]) -> Answer:
        new = accounts.create(self.layout.app(request.app))
        self.engines.prepare(request.app)
        return {"created": new}

    def do_destroy_app(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.proxy import nginx

        self.engines.forget(request.app)
        disk.remove_tree(self.layout.ran / request.app)
        try:
            nginx.remove(self.layout, request.app)
        finally:
            accounts.destroy(self.layout.app(request.app))
        return {}

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

    def do_log_in(self, request: Request, fds: Sequence[int]) -> Answer:
        self._app(request.app)
        self._logins[request.app] = request.logins
        return {}

    def do_build(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        paths = self._app(request.app)
        of = paths.release(release.number)
        if not release.builds:
            raise Rejected(f"{release.name} runs the slug of v{release.slug}; there is nothing to build.")
        ids = accounts.ids_of(paths)
        disk.remove_tree(of.slug)
        with disk.opened_dir(paths.slugs) as slugs:
            disk.make_dir(slugs, of.slug.name, 0o2750, ids.build, ids.app_group)
        if release.image:
            accounts.make_image_stores(paths, ids)
        config = self._build_config(paths, release)
        if release.image and (logins := self._logins.get(request.app)):
            config = {**(config or {}), REGISTRIES: json.dumps(logins)}
        job = Job(
            name=job_name("build", release.app, release.number), app=release.app, user=build_user(release.app),
            argv=(str(PYTHON), "-IS", str(BUILDER), release.app, str(release.number)), cwd=of.slug,
            writable=(of.slug, paths.cache, *((paths.image_builds,) if release.image else ())), timeout=settings.load(self.layout.settings).build_timeout,
            config=of.config.with_suffix(".build") if config is not None else None, build=True,
            release=release if release.image else None,
        )  # fmt: skip
        try:
            if job.config:
                disk.write_atomically(job.config, json.dumps(config).encode(), CONFIG_MODE, lasts=disk.Lasts.LATER)
            code = self._run(job, fds[0], fds[1])
        finally:
            if job.config:
                disk.remove_file(job.config)
        if release.image and not code:
            code = self._store_image(job, paths, fds[1])
        if code:
            return {"code": code, "digest": ""}
        self._note_ran(release.app, [release.number])
        return {"code": code, "digest": disk.digest_tree(of.slug, MAX_TREE)}

    def do_list_parts(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        paths = self._app(request.app)
        slug = paths.release(release.slug).slug
        if not release.slug or not slug.is_dir():
            raise NotFound(f"The files of {release.name} are not kept any more.")
        # By the builder, who owns them, and with nothing to write: what a build has left is read by nobody else.
        job = Job(
            name=job_name("parts", release.app, release.number, str(os.getpid())), app=release.app,
            user=build_user(release.app), argv=(str(PYTHON), "-IS", str(PARTS), str(paths.slugs)), cwd=slug, writable=(),
            timeout=PARTS_TIMEOUT, build=True,
        )  # fmt: skip
        return {"code": self._run(job, None, fds[0])}

    def do_give(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        slug = self._app(request.app).release(release.slug).slug
        if not (release.image or release.machine):
            raise Rejected(f"{release.name} is neither an image nor a disk.")
        if not release.slug or not slug.is_dir():
            raise NotFound(f"The files of {release.name} are not kept any more.")
        # Each by who may read it, with nothing to write: the store of images is the app's own user's, a disk the builder's.
        user, program = (app_user, IMAGE) if release.image else (build_user, DISK)
        job = Job(
            name=job_name("give", release.app, release.number, str(os.getpid())), app=release.app,
            user=user(release.app), argv=(str(PYTHON), "-IS", str(program), "give"), cwd=slug, writable=(),
            timeout=GIVE_TIMEOUT, build=True, release=release if release.image else None,
        )  # fmt: skip
        with self.watch(job.name):
            return {"code": self.engines.run_job(job, None, *fds)}

    def _store_image(self, build: Job, paths: AppPaths, output: int) -> int:
        """The second half of an image's build: podman maps root of a container to the user who has stored its image, so
        that is whom the containers run as."""
        job = replace(build, user=app_user(paths.name), argv=(str(PYTHON), "-IS", str(IMAGE), "store"),
                      writable=(paths.images,), config=None)  # fmt: skip
        try:
            return self._run(job, None, output)
        finally:
            disk.remove_tree(build.cwd / HANDED_IMAGE)

    def do_mount(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        paths = self._app(request.app)
        slug, live = paths.release(release.number).slug, self._ledger(request.app).current()
        # A release of other config vars runs from the slug of the one before it.
        if not release.builds or release.image or (live and release.number in live.needs):
            raise Rejected(f"The slug of {release.name} is as it is.")
        name, user = job_name("build", release.app, release.number), build_user(release.app)
        argv = (str(PYTHON), "-IS", str(BUILDER), release.app, str(release.number), "--data")
        timeout = settings.load(self.layout.settings).build_timeout
        job = Job(
            name=name, app=release.app, user=user, argv=argv, cwd=slug, writable=(slug,), timeout=timeout, build=True
        )
        if code := self._run(job, None, fds[0]):
            return {"code": code, "digest": ""}
        self._note_ran(release.app, [release.number])
        return {"code": code, "digest": disk.digest_tree(slug, MAX_TREE)}

    def do_measure(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        # By the app's own user, who can write nothing meanwhile: root does not walk through what an app has made.
        job = Job(
            name=job_name("measure", request.app, 0, str(os.getpid())), app=request.app, user=app_user(request.app),
            argv=("/usr/bin/du", "-s", "-x", "--block-size=1", "."), cwd=paths.data, writable=(),
            timeout=MEASURE_TIMEOUT,
        )  # fmt: skip
        null, (reader, writer) = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), os.pipe()
        try:
            with self.watch(job.name):
                # What it says of files that went away meanwhile is nobody's concern: the sum comes all the same.
                code = self.engines.run_job(job, None, writer, null)
            os.close(writer)
            writer = -1
            told = os.read(reader, 100).split()
        finally:
            for fd in (null, reader, writer):
                if fd >= 0:
                    os.close(fd)
        if not told or not told[0].isdigit():
            raise HostFault(
                f"The data of {request.app} could not be measured (du ended with {code}).",
                holds="Nothing was changed.", hint=as_root(f"du -sh {paths.data}"),
            )  # fmt: skip
        return {"used": int(told[0])}

    def do_install_packages(self, request: Request, fds: Sequence[int]) -> Answer:
        self._app(request.app)
        allowed = settings.load(self.layout.settings).apt_allow.split()
        if refused := [name for name in request.packages if not any(fnmatchcase(name, one) for one in allowed)]:
            raise Rejected(
                f"The server's settings do not let an app have {', '.join(refused)} installed (apt_allow).",
                holds="Nothing was installed.",
                hint=f"An administrator allows it, once, on the server: shipit apt:allow {' '.join(refused)}",
            )
        return {"code": self.engines.install_packages(request.app, request.packages, fds[0])}

    def do_install_podman(self, request: Request, fds: Sequence[int]) -> Answer:
        if not settings.load(self.layout.settings).containers:
            raise Rejected(
                "The server's settings say that shipit does not install podman (containers).",
                holds="Nothing was installed.", hint=f"On the server, once: {as_root(apt.by_hand(apt.PODMAN))}",
            )  # fmt: skip
        return {"code": self.engines.install_podman(fds[0])}

    def do_clear_cache(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        ids = accounts.ids_of(paths)
        disk.remove_tree(paths.cache)
        with disk.opened_dir(paths.cache.parent) as app:
            disk.make_dir(app, paths.cache.name, 0o700, ids.build, ids.app_group)
        disk.remove_tree(paths.image_builds)
        return {}

    def do_release_command(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        timeout = settings.load(self.layout.settings).release_command_timeout
        job = self._job(job_name("release", release.app, release.number), release, ["--release"], [], timeout)
        return {"code": self._run(job, None, fds[0])}

    def do_check_command(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        process = release.process(request.process)
        if process.check.kind is not CheckKind.COMMAND or request.index > release.count(process.type):
            raise Rejected(f"{process.type}.{request.index} of {release.name} has no command healthcheck.")
        words = [process.type, str(request.index)]
        job = self._job(check_name(release, *words), release, ["--check"], words, process.check.timeout)
        return {"code": self._run(job, None, fds[0])}

    def do_run(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        name = job_name("run", release.app, release.number, request.run)
        job = self._job(name, release, [f"--run={request.run}"], [], 0)
        with self.watch(job.name):
            return {"code": self.engines.run_job(job, fds[0], fds[1], fds[2], tty=request.tty)}

    def do_check_files(self, request: Request, fds: Sequence[int]) -> Answer:
        return {"damaged": [number for number in request.releases if self._damaged(request.app, number)]}

    def do_start(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        if number := self._damaged_unseen(release):
            raise HostFault(
                f"The files of v{number}, which {release.name} runs, are not those that were built.",
                holds="Nothing was started or stopped.",
                hint=f"Push the commit again, or build the live one anew: shipit deploy {release.app}",
            )
        live = self._ledger(release.app).current()
        if live and live.warm and not release.took_over:
            # No more than two releases of an app are in memory.
            self.engines.cool(release.app, {live.runs_as, release.number})
        self.engines.start(release)
        return {}

    def do_boot_with(self, request: Request, fds: Sequence[int]) -> Answer:
        suspended = self._ledger(request.app).state().suspended
        self.engines.boot_with(request.app, self._known(request) if request.release else None, suspended)
        return {}

    def do_stop(self, request: Request, fds: Sequence[int]) -> Answer:
        self.engines.stop(request.app, self._release(request).runs_as, wait=request.wait)
        return {}

    def do_keep_warm(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        previous = self._ledger(request.app).release(release.previous) if release.warm and release.previous else None
        return {"kept": previous is not None and previous.is_known and self.engines.keep_warm(previous, release.warm)}

    def do_warm(self, request: Request, fds: Sequence[int]) -> Answer:
        return {"releases": sorted(self.engines.warm(request.app))}

    def do_cool(self, request: Request, fds: Sequence[int]) -> Answer:
        live = self._ledger(request.app).current()
        self.engines.cool(request.app, {live.runs_as} if live else ())
        return {}

    def do_look_every(self, request: Request, fds: Sequence[int]) -> Answer:
        self._app(request.app)
        self.engines.look_every(request.app, request.seconds)
        return {}

    def do_restart(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        if request.process:
            release.process(request.process)
        self.engines.restart(release, request.process or None)
        return {}

    def do_processes(self, request: Request, fds: Sequence[int]) -> Answer:
        running = [asdict(status) for status in self.engines.processes(request.app)]
        defined, under_way = self.engines.defined(request.app), self.engines.under_way(request.app)
        return {"processes": running, "defined": sorted(defined), "under_way": sorted(under_way)}

    def do_proxy(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.proxy import nginx

        return {"reloaded": nginx.apply(self.layout, settings.load(self.layout.settings), request.app)}

    def do_certify(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        done = certificates.certify(self.layout, self.engines, request.app, fds[0], now=request.now)
        return {"names": [asdict(one) for one in done]}

    def do_add_certificate(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        return {"names": list(certificates.add(self.layout, request.app, fds[0]).names)}

    def do_remove_certificate(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        return {"removed": certificates.remove(self.layout, request.app)}

    def do_prove_by_dns(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        certificates.prove_by_dns(self.layout, request.app, request.plugin, request.seconds, fds[0])
        return {}

    def do_prune(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        ledger = self._ledger(request.app)
        gone = set(request.releases)
        needed = needed_slugs(ledger, gone)
        if wanted := sorted(gone & needed):
            raise Rejected(f"v{wanted[0]} of {request.app} is still needed and was not removed.")
        for number in sorted(gone):
            self._put_aside(paths, number)
            disk.remove_tree(paths.release(number).slug)
        return {}

    def do_put_aside(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        if request.release in needed_slugs(self._ledger(request.app), {request.release}):
            raise Rejected(f"v{request.release} of {request.app} is still needed and was not put aside.")
        self._put_aside(paths, request.release)
        return {}

    def do_cancel(self, request: Request, fds: Sequence[int]) -> Answer:
        stop_jobs(self.engines, self._release(request))
        return {}

    def do_reconcile(self, request: Request, fds: Sequence[int]) -> Answer:
        return {"done": reconcile.reconcile(self.layout, self.engines, request.app)}

    def _app(self, app: AppName) -> AppPaths:
        paths = self.layout.app(app)
        if not paths.config.is_dir():
            raise NotFound(f"There is no app {app!r}.", hint="List the apps: shipit apps")
        return paths

    def _put_aside(self, paths: AppPaths, number: int) -> None:
        """Stop a release and remove all of it but its slug."""
        self.engines.stop(paths.name, number, wait=False)
        of = paths.release(number)
        disk.remove_tree(of.run_dir)
        disk.remove_file(self.layout.ran / paths.name / f"v{number}")
        disk.remove_file(of.config)

    def _ledger(self, app: AppName) -> Ledger:
        return Ledger(self._app(app))

    def _release(self, request: Request) -> Release:
        """For what is only to be stopped or removed; a newer shipit may have written it."""
        return self._ledger(request.app).release(request.release)

    def _known(self, request: Request) -> Release:
        """For what is to be started or built: the whole record is understood, or Newer is raised."""
        release = self._release(request)
        release.must_be_known()
        return release

    def _job(self, name: str, release: Release, flags: list[str], words: list[str], timeout: int) -> Job:
        """A command of the app in a release: its user, its data, its config vars."""
        paths = self._app(release.app)
        return Job(
            name=name, app=release.app, user=app_user(release.app),
            argv=(str(PYTHON), "-IS", str(LAUNCH), *flags, release.app, str(release.runs_as), *words),
            cwd=paths.data, writable=(paths.data, paths.sockets), timeout=timeout,
            config=paths.release(release.runs_as).config, release=release,
        )  # fmt: skip

    def _run(self, job: Job, stdin: int | None, output: int) -> int:
        with self.watch(job.name):
            return self.engines.run_job(job, stdin, output, output)

    def _build_config(self, paths: AppPaths, release: Release) -> Mapping[str, str] | None:
        """The config vars that the build may see; the release's own snapshot comes after it."""
        known = read_config(paths, release.config_base)
        return {key: value for key, value in known.items() if build_may_see(key, release.build_config)} or None

    def _make_ready(self, request: Request) -> None:
        release = self._known(request)
        # What was built is asked to start at once, and what is stopped is not.
        if not release.builds and not self._ledger(release.app).state().stopped:
            self.engines.expect_start(release)

    def _damaged_unseen(self, release: Release) -> int:
        """The first slug of those that the release runs from which lost files since it was built; 0 if none did. One
        that has run since the machine started is not looked at again: 60,000 files take half a second."""
        ledger = self._ledger(release.app)
        live = None if ledger.state().stopped else ledger.current()
        # Of a slug whose environment alone is in use, the rest is not.
        slug = {release.slug} - {live.slug if live else 0}
        links = _linked(release) - (_linked(live) if live else set())
        unseen = [n for n in (slug | links) - {0} if not (self.layout.ran / release.app / f"v{n}").exists()]
        for number in sorted(unseen):
            if self._damaged(release.app, number):
                return number
        self._note_ran(release.app, {*unseen, release.slug})
        return 0

    def _note_ran(self, app: AppName, numbers: Collection[int]) -> None:
        # A full /run is no reason not to start an app: it is only looked at once more.
        with suppress(OSError):
            disk.roots_dir(self.layout.ran / app, 0o700)
            for number in numbers:
                (self.layout.ran / app / f"v{number}").touch(0o600)

    def _damaged(self, app: AppName, number: int) -> bool:
        """Whether this slug lost files since it was built."""
        slug = self._app(app).release(number).slug
        try:
            expected = self._ledger(app).release(number).digest
        except NotFound:
            return False
        return not slug.is_dir() or bool(expected and disk.digest_tree(slug, MAX_TREE) != expected)


def read_config(paths: AppPaths, number: int) -> dict[ConfigKey, str]:
    """The config vars of a release, none for 0; raises NotFound."""
    if not number:
        return {}
    try:
        config: dict[ConfigKey, str] = json.loads(paths.release(number).config.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"The config vars of {paths.name} v{number} are not kept any more.") from None
    return config


def _linked(release: Release) -> set[int]:
    """The releases whose environments it has: its slug has a link to each, if it did not make that one itself."""
    return {release.environment, *release.shares}


def needed_slugs(ledger: Ledger, gone: set[int]) -> set[int]:
    """The releases whose slugs must stay when those of `gone` go: the live one, and what a kept one runs from."""
    kept = ledger.kept() - gone
    current = ledger.current_number()
    used: set[int] = set()
    for number in (kept | {current}) - {0}:
        with suppress(NotFound):
            release = ledger.release(number)
            used |= release.needs
    return used | ({current} if current else set())


def check_name(release: Release, kind: str, index: str) -> str:
    return job_name("check", release.app, release.number, kind, index)


def stop_jobs(engines: Engines, release: Release) -> None:
    """Stop a build, release command or check of the release, whichever runs."""
    checks = [
        check_name(release, process.type, str(index))
        for process, index in release.running()
        if process.check.kind is CheckKind.COMMAND
    ]
    for name in (
        job_name("build", release.app, release.number),
        job_name("release", release.app, release.number),
        *checks,
    ):
        engines.stop_job(name)
