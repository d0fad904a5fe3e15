"""`deploy` and `git:from-archive`: makes a release of a stored commit, or of an archive that is sent."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import IO

import click

from receiver.caller import Role
from receiver.cli.args import DROP_WEB, app_argument, ledger_of
from receiver.cli.main import Context
from receiver.errors import Denied, Rejected, as_root
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Origin
from receiver.names import AppName, is_release, release_number
from receiver.story.submit import Submission, tell

archive_type = click.option(
    "--archive-type", "kind", default="", metavar="TYPE",
    help="Refuse any other than this: tar, tar.gz, tar.xz, tar.bz2, tar.zst, zip, deb, rpm.",
)  # fmt: skip


signature = click.option("--signature", default="", metavar="BASE64",
                         help="Of what is sent, by ssh-keygen -Y sign -n shipit: base64 -w0 < FILE.sig")  # fmt: skip
sha256_option = click.option(
    "--sha256", default="", metavar="DIGEST", help="What an archive from a URL, or an image of a registry, must be."
)
drop_web = click.option("--drop-web", is_flag=True, help=DROP_WEB)


@click.command()
@app_argument
@click.argument("what", required=False, metavar="[REF|vN|-]")
@click.option(
    "--fresh", is_flag=True, help="Build without the environment of an earlier release, and with an empty cache."
)
@archive_type
@click.option("--url", default="", help="Fetch the archive from this URL (https; http with --sha256).")
@sha256_option
@click.option(
    "--pypi", default="", metavar="NAME==V", help="Fetch this package from PyPI, or from the index that builds use."
)
@click.option("--image", default="", metavar="REF", help="Fetch this container image from its registry.")
@signature
@click.option("--system", is_flag=True, help="Refused, with the reason and with what an administrator types instead.")
@drop_web
@click.pass_obj
def deploy(
    ctx: Context,
    app: AppName,
    what: str | None,
    fresh: bool,
    kind: str,
    url: str,
    sha256: str,
    pypi: str,
    image: str,
    signature: str,
    system: bool,
    drop_web: bool,
) -> int:
    """Build and put live as a new release: the live commit again, a stored one, or an archive.

    \b
    Examples:
      shipit deploy blog                     the live commit once more
      shipit deploy blog v7                  what v7 was built from
      shipit deploy blog main                what was pushed there, a tag, or a commit's id
      shipit deploy blog - < tree.tar.gz     tar (gz, xz, bz2, zst) or zip from standard input
      shipit deploy blog - < blog-1.2.whl    a wheel, a deb, an rpm
      shipit deploy blog --url https://example.org/blog-1.2.tar.gz --sha256 DIGEST
      shipit deploy blog --pypi blog==1.2
      shipit deploy blog --image registry.example.org/blog:1.2
    """
    ledger = ledger_of(ctx, app)
    if system:
        raise Rejected(
            "shipit installs nothing into the system: a package's scripts would run as root, and there would be no way back.",
            holds="Nothing was received.",
            hint=f"As a release, unpacked beside others: shipit deploy {app} - < FILE\n"
            f"For the machine, by its administrator: {as_root('apt install ./FILE.deb')}",
        )
    if image:
        if url or what or pypi or kind or signature:
            raise Rejected(
                "An image of a registry, or something else: not both.", hint=f"shipit deploy {app} --image {image}"
            )
        return pull_image(ctx, ledger, image, sha256, fresh=fresh, drop_web=drop_web)
    if sha256 and not url:
        raise Rejected("--sha256 is for an archive from a URL.", hint=f"shipit deploy {app} --url URL --sha256 DIGEST")
    if pypi:
        if url or what:
            raise Rejected(
                "A package of an index, or something else: not both.", hint=f"shipit deploy {app} --pypi {pypi}"
            )
        from receiver.sources.pypi import found

        url, sha256 = found(pypi, ctx.settings.build_environment)
    if url and what:
        raise Rejected(
            f"An archive from a URL, or {what[:40]!a}: not both.", hint=f"shipit deploy {app} --url URL --sha256 DIGEST"
        )
    if what == "-" or url:
        return ship(ctx, ledger, kind, signature, url, sha256, fresh=fresh, drop_web=drop_web)
    if kind or signature:
        raise Rejected(
            "--archive-type and --signature are for an archive.", hint=f"Send one: shipit deploy {app} - < tree.tar.gz"
        )
    from receiver.ops.all import sections
    from receiver.runtimes.read import makes_image, read_manifest
    from receiver.sources.all import source_of
    from receiver.story.admit import keep_web
    from receiver.story.containers import refuse_without

    if what is None:
        return rebuild(ctx, app, fresh=fresh)
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        origin = stored(ledger, what)
        manifest = read_manifest(source_of(ledger.paths, origin).tree(origin), sections())
        if makes_image(manifest):
            refuse_without(ctx.settings, ctx.caller)
        if not drop_web:
            keep_web(ledger, manifest, f"If this is intended: shipit deploy {app} {what} --drop-web")
        return submission.submit(Change.DEPLOY, builds=True, fresh=fresh, message=f"deploy {what}", origin=origin)


def rebuild(ctx: Context, app: AppName, *, fresh: bool = False) -> int:
    """Make a release of the live commit and follow it to its end; returns the exit code."""
    ledger = ledger_of(ctx, app)
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        live = submission.current()
        origin = live.origin
        if origin is None:
            raise Rejected(f"{app} has no commit to build.", hint=f"Push one: git push HOST:{app} main")
        if live.image:
            from receiver.story.containers import refuse_without

            refuse_without(ctx.settings, ctx.caller)
        return submission.submit(Change.REBUILD, builds=True, fresh=fresh, message="rebuild", origin=origin)


@click.command()
@app_argument
@click.argument("what", metavar="URL|-")
@archive_type
@sha256_option
@signature
@drop_web
@click.pass_obj
def from_archive(ctx: Context, app: AppName, what: str, kind: str, sha256: str, signature: str, drop_web: bool) -> int:
    """Deploy an archive from a URL or from standard input, as `deploy APP --url URL` and `deploy APP -`.

    \b
    Examples:
      shipit git:from-archive blog https://example.org/blog-1.2.tar.gz --sha256 DIGEST
      shipit git:from-archive blog - < tree.tar.gz
    """
    url = "" if what == "-" else what
    if sha256 and not url:
        raise Rejected(
            "--sha256 is for an archive from a URL.", hint=f"shipit git:from-archive {app} URL --sha256 DIGEST"
        )
    return ship(ctx, ledger_of(ctx, app), kind, signature, url, sha256, fresh=False, drop_web=drop_web)


@click.command()
@app_argument
@click.argument("image", metavar="REF")
@sha256_option
@drop_web
@click.pass_obj
def from_image(ctx: Context, app: AppName, image: str, sha256: str, drop_web: bool) -> int:
    """Deploy a container image of a registry, as `deploy APP --image REF`.

    \b
    Example: shipit git:from-image blog registry.example.org/blog:1.2
    """
    return pull_image(ctx, ledger_of(ctx, app), image, sha256, fresh=False, drop_web=drop_web)


def pull_image(ctx: Context, ledger: Ledger, image: str, sha256: str, *, fresh: bool, drop_web: bool) -> int:
    """Make a release of a registry's image; it records the digest that the tag led to."""
    from receiver.sources.download import digest_of
    from receiver.sources.logins import how_to_use, logins_for, withheld
    from receiver.sources.registry import pulled, reference
    from receiver.story.containers import refuse_without

    wanted, digest = reference(image), digest_of(sha256)
    if digest:
        if wanted.digest not in ("", f"sha256:{digest}"):
            raise Rejected(
                "--sha256 and the image's own digest differ.", holds="Nothing was fetched.",
                hint=f"One of them is enough: shipit deploy {ledger.app} --image {image}",
            )  # fmt: skip
        wanted = replace(wanted, digest=f"sha256:{digest}")
    refuse_without(ctx.settings, ctx.caller)
    if ctx.settings.signed_only:
        raise Denied(
            "This server takes signed archives and packages only (signed_only in its settings).",
            holds="Nothing was received.", hint=f"Sign and send it: docker save {image} > image.tar; shipit deploy image.tar",
        )  # fmt: skip
    tell(f"Fetching {wanted}")
    there = () if fresh else layers_of(ledger)
    login = logins_for(ctx.layout, ledger.paths, admin=ctx.caller.role is Role.ADMIN).get(wanted.host)
    limit = ctx.settings.max_push * 2**20
    with ExitStack() as until_received:
        try:
            file, size, found = until_received.enter_context(pulled(wanted, login, ledger.paths.repo, limit, there))
        except Denied as denied:
            if login is None and wanted.host in withheld(ctx.layout, ledger.paths):
                denied.hint += f"\n{how_to_use(ledger.app, wanted.host)}"
            raise
        tell(f"It is {found.digest}, {size / 2**20:.1f} MiB fetched")
        return received(ctx, ledger, file, size, fresh=fresh, drop_web=drop_web, ref=str(found))


def layers_of(ledger: Ledger) -> frozenset[str]:
    """The image layers that the server has, which need not be fetched."""
    # Slow to import, and rarely needed.
    from receiver.story.layers import stored_layers

    return stored_layers(ledger)


def stored(ledger: Ledger, what: str) -> Origin:
    """The origin for a release, a branch, a tag or a commit's id; raises Rejected if it is not kept any more."""
    from receiver.sources.all import named, origin_of, source_of

    if is_release(what):
        release = ledger.release(release_number(what))
        origin = origin_of(release)
        if not source_of(ledger.paths, origin).has(origin):
            raise Rejected(
                f"What {release.name} was built from is not kept any more.", hint=f"Push {origin.short} again."
            )
        return origin
    return named(ledger.paths, what, ledger.state().branch)


def ship(
    ctx: Context, ledger: Ledger, kind: str, signature: str, url: str, sha256: str, *, fresh: bool, drop_web: bool
) -> int:
    """Make a release of the archive at a URL, or, without one, on standard input."""
    from receiver.sources.archive import KINDS, spooled

    if kind and kind not in KINDS:
        raise Rejected(f"shipit knows no archive type {kind[:20]!a}.", hint=f"It knows: {', '.join(KINDS)}")
    limit = ctx.settings.max_push * 2**20
    if url:
        from receiver.sources.download import downloaded, shown

        tell(f"Fetching {shown(url)}")
        arriving = downloaded(url, sha256, ledger.paths.repo, limit)
    else:
        arriving = spooled(0, ledger.paths.repo, limit)
    # Receive it before taking the app's turn: a slow sender must not keep others waiting.
    with arriving as (file, size):
        signer = signed_by(ctx, ledger.app, file, signature) if size else ""
        if signer:
            tell(f"Signed by {signer}")
        ref = shown(url) if url else ""
        return received(ctx, ledger, file, size, kind, signer, fresh=fresh, drop_web=drop_web, ref=ref)


def received(
    ctx: Context, ledger: Ledger, file: IO[bytes], size: int, kind: str = "", signer: str = "", *, fresh: bool,
    drop_web: bool, ref: str = "",
) -> int:  # fmt: skip
    """Make a release of a file that has arrived; `ref`: a name for its origin, "" for the source's own."""
    from receiver.sources.all import sent
    from receiver.sources.limits import Limits
    from receiver.story.admit import Admission, approve_for, room_for

    settings = ctx.settings
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        current = ledger.current()
        limits = Limits(size, room_for(ledger, settings), settings.max_files, layers=lambda: layers_of(ledger))
        how = "" if drop_web else "Is this intended? The same once more, with --drop-web"
        check = Admission(ctx.layout, ledger, settings, ctx.caller, how)
        source = sent(ledger.paths, file)
        origin, lines = source.receive(
            file,
            limits,
            by=signer or ctx.caller.name,
            parent=current.commit if current else None,
            said=kind,
            check=check,
        )
        for line in lines:
            tell(line)
        if ref:
            origin = replace(origin, ref=ref)
        approve_for(ctx.caller, ledger, check.names)
        return submission.submit(Change.DEPLOY, builds=True, fresh=fresh, origin=origin)


def signed_by(ctx: Context, app: AppName, file: IO[bytes], signature: str) -> str:
    """The name of the signing key; "" without a signature, if the server's settings allow that. Raises Denied,
    Rejected."""
    if not signature and not ctx.settings.signed_only:
        return ""
    from receiver.gate.keys import Keyring
    from receiver.sources.signed import verified

    if not signature:
        raise Denied(
            "This server takes signed archives and packages only (signed_only in its settings).",
            holds="Nothing was received.",
            hint="Sign it: shipit pack --sign     and send it: shipit deploy FILE",
        )
    keys = [key for key in Keyring(ctx.layout).all() if key.role is not Role.VIEW and (not key.apps or app in key.apps)]
    return verified(file, signature, [(key.name, key.type, key.blob) for key in keys])
