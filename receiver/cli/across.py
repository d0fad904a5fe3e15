"""`releases:diff`, `releases:export` and others: information about releases, whichever way they came."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import click

from receiver.cli import out
from receiver.cli.args import RELEASE, app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.errors import HostFault, Rejected, printable
from receiver.names import AppName
from receiver.runtimes.base import Part
from receiver.story.submit import tell

MOST = 100  # rows of a table; JSON has all


@click.command()
@app_argument
@click.argument("old", type=RELEASE)
@click.argument("new", type=RELEASE, required=False)
@json_option
@click.pass_obj
def diff(ctx: Context, app: AppName, old: int, new: int | None, form: str) -> None:
    """Show what changed from one release to another (default: to the live one): origin, processes, formation, config
    vars (names only), dependencies, files.

    \b
    Examples:
      shipit releases:diff blog v7 v9
      shipit releases:diff blog v7 --format json
    """
    from receiver.story.compare import compare, lines

    ledger = ledger_of(ctx, app)
    number = new or ledger.current_number()
    if not number:
        raise Rejected(
            f"{app} has no live release to compare with.", hint=f"Say which: shipit releases:diff {app} v1 v2"
        )
    was, now = ledger.release(old), ledger.release(number)
    with ctx.connect_agent() as agent:
        difference = compare(ledger, agent, was, now)
    if form == "json":
        out.show_json({"from": was.name, "to": now.name, **difference.encode()})
        return
    rows = [
        {"part": part, "sign": sign, "what": printable(what).replace("\n", "⏎")}
        for part, sign, what in lines(difference)
    ]
    out.table(rows[:MOST], {"part": "WHAT", "sign": "", "what": f"{was.name} → {now.name}"},
              empty=f"{was.name} and {now.name} of {app} do not differ.")  # fmt: skip
    if len(rows) > MOST:
        out.say(f"… and {len(rows) - MOST} more: --format json")
    for part, why in difference.why.items():
        tell(f"What differs in {part} is not known. {why}")


@click.command()
@app_argument
@click.argument("release", type=RELEASE)
@click.pass_obj
def sbom(ctx: Context, app: AppName, release: int) -> None:
    """Print what was installed for a release as a bill of materials, CycloneDX 1.6 in JSON.

    \b
    Example: shipit releases:sbom blog v7 > blog-v7.cdx.json
    """
    from receiver.story.bill import bill, parts_of

    ledger = ledger_of(ctx, app)
    found = ledger.release(release)
    with ctx.connect_agent() as agent:
        out.show_json(bill(found, parts_of(ledger, agent, found)))


@click.command()
@app_argument
@click.argument("release", type=RELEASE)
@click.option("--signature", is_flag=True, help="Print the server's signature of the statement, and not the statement.")
@click.option("--signer", is_flag=True, help="Print who signs, as a line for ssh-keygen's allowed signers.")
@click.pass_obj
def provenance(ctx: Context, app: AppName, release: int, signature: bool, signer: bool) -> None:
    """Print where a release came from: an in-toto statement with SLSA's provenance, in JSON.

    \b
    Examples:
      shipit releases:provenance blog v7 > blog-v7.intoto.json
      shipit releases:provenance blog v7 --signature > blog-v7.intoto.json.sig
      shipit releases:provenance blog v7 --signer > signers
      ssh-keygen -Y verify -f signers -I shipit@HOST -n shipit-provenance -s blog-v7.intoto.json.sig < blog-v7.intoto.json
    """
    from receiver.errors import NotFound
    from receiver.here import address
    from receiver.sources.export import exported
    from receiver.story import bill
    from receiver.story import provenance as story

    ledger = ledger_of(ctx, app)
    found = ledger.release(release)
    # The machine's own name, so that the statement is the same whichever address the login came to.
    host = address(ctx.settings.domain, "")
    if signer:
        out.say(story.signer(ctx.layout, host))
        return
    if not found.status.final:
        raise Rejected(f"{found.name} of {app} is not finished.", hint=f"Wait for it: shipit releases:output {app} -f")
    with ExitStack() as stack:
        artifact, parts = None, list[Part]()
        try:
            artifact = stack.enter_context(exported(ledger.paths, found))
        except Rejected as gone:
            tell(f"Without the digest of the artifact: {gone.message}")
        try:
            with ctx.connect_agent() as agent:
                parts = bill.parts_of(ledger, agent, found)
        except NotFound as gone:
            tell(f"Without what was installed: {gone.message}")
        said = story.encoded(story.statement(found, artifact, parts, host))
    sys.stdout.write(story.signature(ctx.layout, said) if signature else said.decode())


@click.command()
@app_argument
@click.argument("release", type=RELEASE)
@click.option("--tree", is_flag=True, help="Print all files as an archive, also if the release is one package.")
@click.pass_obj
def export(ctx: Context, app: AppName, release: int, tree: bool) -> int:
    """Print the artifact of a release: its files as `shipit pack` packs them (tar.gz), or the package that was sent; the
    container image, or the virtual machine's disk.

    \b
    Examples:
      ssh prod releases:export blog v7 > blog-v7.tar.gz
      ssh prod releases:export blog v7 | ssh other deploy blog -
    """
    from receiver.sources.export import exported, what_stored
    from receiver.sources.tarball import CHUNK

    ledger = ledger_of(ctx, app)
    if os.isatty(1):
        raise Rejected("Standard output is a terminal.", hint=f"shipit releases:export {app} v{release} > FILE")
    asked = ledger.release(release)
    if not tree and (stored := what_stored(asked)):
        tell(f"{asked.name} is a {stored}, {asked.origin.ref if asked.origin else ''}")
        with ctx.connect_agent() as agent:
            code = agent.give(app, release, 1, 2)
        if code:
            raise HostFault(f"The {stored} did not come to its end.", holds="What was printed of it is of no use.")
        return 0
    with exported(ledger.paths, asked, tree=tree) as found:
        tell(f"{printable(found.name)}, {found.size / 2**20:.1f} MiB, sha256:{found.digest}")
        sys.stdout.flush()
        while chunk := found.file.read(CHUNK):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return 0
