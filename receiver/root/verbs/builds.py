"""The verbs that make a slug, an image or a disk, and those that read one: all of them in the build's sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from receiver import settings
from receiver.engines.base import Job, job_name
from receiver.errors import NotFound, Rejected, as_root
from receiver.model import Release
from receiver.names import build_may_see
from receiver.paths import BUILDER, DISK, HANDED_IMAGE, IMAGE, PARTS, PYTHON, REGISTRIES, AppPaths, app_user, build_user
from receiver.root import accounts
from receiver.root.verbs.base import Answer
from receiver.root.verbs.config import CONFIG_MODE, read_config
from receiver.root.verbs.slugs import MAX_TREE, Slugs
from receiver.system import apt, disk
from receiver.wire import Request

PARTS_TIMEOUT, GIVE_TIMEOUT = 60, 3600


class Builds(Slugs):
    """Builds, the system packages that they need, and their caches."""

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

    def _build_config(self, paths: AppPaths, release: Release) -> Mapping[str, str] | None:
        """The config vars that the build may see; the release's own snapshot is written only after the build."""
        known = read_config(paths, release.config_base)
        return {key: value for key, value in known.items() if build_may_see(key, release.build_config)} or None

    def _store_image(self, build: Job, paths: AppPaths, output: int) -> int:
        """The second half of an image's build. podman maps root inside a container to the user who has stored the
        image; so the app's user stores it, and the containers run as that user."""
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
        # A later release, with other config vars, may run from this slug.
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

    def do_list_parts(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        paths = self._app(request.app)
        slug = paths.release(release.slug).slug
        if not release.slug or not slug.is_dir():
            raise NotFound(f"The files of {release.name} are not kept any more.")
        # Run as the builder, who owns the files, without write access: no other user reads what a build has left.
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
        # Each as the user who may read it, without write access: the image store is the app's, a disk the builder's.
        user, program = (app_user, IMAGE) if release.image else (build_user, DISK)
        job = Job(
            name=job_name("give", release.app, release.number, str(os.getpid())), app=release.app,
            user=user(release.app), argv=(str(PYTHON), "-IS", str(program), "give"), cwd=slug, writable=(),
            timeout=GIVE_TIMEOUT, build=True, release=release if release.image else None,
        )  # fmt: skip
        with self.watch(job.name):
            return {"code": self.engines.run_job(job, None, *fds)}

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
