"""The command line: parse, call, show, exit. Data goes to stdout, everything else to stderr.

Exit status: 0 everything required is ready; 1 an error of preheat's own; 2 wrong usage or
manifest; 3 a required package could not be made ready; 4 the store; 5 the platform; 6 the lock;
7 the index or the resolution; 8 an installation; 9 `preheat doctor` found what breaks a start;
130 interrupted.
"""

from __future__ import annotations

import gc
import json
import shlex
import sys
from pathlib import Path

# preheat may be installed in the platform itself, and nothing there is written to.
sys.dont_write_bytecode = True

import click

from preheat import __version__, start
from preheat.cli import documents
from preheat.cli.options import (
    Options,
    check_deadline,
    listening,
    print_json,
    size_of,
    with_options,
)
from preheat.cli.streams import make_usable
from preheat.commands.invocation import order_of
from preheat.commands.warm import Startup
from preheat.words.errors import RequiredPackageError, StoreError

# A plan is made of some hundred thousand small values that stay to its end: looking through them
# for what may go takes an eighth of its time.
gc.set_threshold(200_000)

NOT_READY = RequiredPackageError.exit_status
BREAKS_A_START = 9


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="preheat")
def main() -> None:
    """Make heavy Python packages importable at a worker's start, around its platform."""
    make_usable()


_DEADLINE = click.option(
    "--deadline",
    metavar="DURATION",
    help="Optional packages are not waited for longer than that: --deadline 90s.",
)
_RETRY = click.option("--retry", is_flag=True, help="Try what failed before; resolve anew.")
_LOCKED = click.option("--locked", is_flag=True, help="Use the lock beside the manifest, or fail.")


@main.command()
@_LOCKED
@with_options
def plan(options: Options, locked: bool) -> None:
    """Show what a start would do and what it takes; nothing is changed."""
    from preheat.making.provision import Provision

    order = order_of(options.invocation, locked=locked)
    with listening() as listener:
        made, report = Provision(order, listener).plan()
    if options.as_json:
        print_json(documents.plan(made, report))
    else:
        from preheat.cli.text import show_plan

        show_plan(made, report, verbose=options.verbose)
    sys.exit(0 if made.ready else NOT_READY)


@main.command()
@_DEADLINE
@_RETRY
@_LOCKED
@click.option("--cold", is_flag=True, help="Go the long way even where the pointer is valid.")
@with_options
def warm(options: Options, deadline: str | None, retry: bool, locked: bool, cold: bool) -> None:
    """Make the manifest's packages ready."""
    from preheat.commands.warm import warm as make_ready

    check_deadline(deadline)
    startup = Startup(
        invocation=options.invocation, deadline=deadline, retry=retry, locked=locked, cold=cold
    )
    report = make_ready(startup, listening)
    if options.as_json:
        print_json(report)
    else:
        from preheat.cli.text import show_report
        from preheat.edges.store.report_file import report_from

        show_report(report_from(report), verbose=options.verbose)
    if not report["ready"]:
        click.echo(f"preheat: {start.required_error(report['packages'], hint='')}", err=True)
    sys.exit(0 if report["ready"] else NOT_READY)


@main.command(context_settings={"ignore_unknown_options": True})
@_DEADLINE
@_RETRY
@_LOCKED
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_options
def run(
    options: Options,
    deadline: str | None,
    retry: bool,
    locked: bool,
    command: tuple[str, ...],
) -> None:
    """Warm, then become COMMAND with everything on its path."""
    from preheat.commands.run import become, other_python, prepare

    check_deadline(deadline)
    startup = Startup(invocation=options.invocation, deadline=deadline, retry=retry, locked=locked)
    launch = prepare(startup, listening)
    for package in launch.packages:
        if not package.ok:
            click.echo(f"preheat: not available: {package.name}: {package.reason}", err=True)
    other = other_python(launch, command, options.invocation.python)
    if other is not None:
        click.echo(
            f"preheat: {other} is another Python than the packages are for: "
            f"name {options.invocation.python} in the command",
            err=True,
        )
    try:
        become(launch, command)
    except OSError as error:
        missing_command = isinstance(error, FileNotFoundError)
        click.echo(f"preheat: {shlex.join(command)}: {error.strerror}", err=True)
        sys.exit(127 if missing_command else 126)


@main.command()
@with_options
def status(options: Options) -> None:
    """Show every setting with where it came from, and whether the next start is warm."""
    from preheat.commands.status import status as look

    found = look(options.invocation)
    if options.as_json:
        print_json(documents.status(found))
    else:
        from preheat.cli.text import show_status

        show_status(found)


@main.command()
@with_options
def lock(options: Options) -> None:
    """Write a lock (PEP 751) with sizes and hashes beside the manifest."""
    from preheat.commands.lock import write_lock

    order = order_of(options.invocation)
    with listening() as listener:
        written = write_lock(order, listener)
    if options.as_json:
        print_json(documents.lock(written))
    else:
        click.echo(f"{written.file}: {len(written.lock.distributions)} distributions")
        for name, reason in written.lock.refused:
            click.echo(f"not in it: {name}: {reason}")
    sys.exit(0 if written.complete else NOT_READY)


@main.command()
@click.option("--dry-run", is_flag=True, help="Show what would be freed; free nothing.")
@click.option("--need", metavar="SIZE", help="Stop when that much is free: --need 3GB.")
@with_options
def clean(options: Options, dry_run: bool, need: str | None) -> None:
    """Free leftovers and caches, the cheapest loss first.

    Exit status 4 where --need cannot be met; what could go has gone then.
    """
    from preheat.cli.text import show_estimates, show_freed
    from preheat.commands import clean as cleaning

    wanted = cleaning.Wanted(bytes=size_of(need), written=need) if need else None
    if dry_run:
        found = cleaning.survey(options.invocation, wanted)
        if options.as_json:
            print_json(documents.estimates(found))
        else:
            show_estimates(found)
        return
    freed = cleaning.clean(options.invocation, wanted)
    lacking = freed.lacks(wanted.bytes) if wanted else 0
    if options.as_json:
        print_json(documents.freed(freed, lacking))
        sys.exit(StoreError.exit_status if lacking else 0)
    show_freed(freed)
    if wanted and lacking:
        raise cleaning.not_enough(options.invocation, freed, wanted)


@main.command()
@click.option("--history", is_flag=True, help="One line for each start that is remembered.")
@with_options
def report(options: Options, history: bool) -> None:
    """Show the last start, and how the starts before it went."""
    from preheat.commands import report as reports

    starts = reports.history(options.invocation)
    if history:
        for line in starts:
            click.echo(json.dumps(line))
        return
    last = reports.last(options.invocation)
    if options.as_json:
        print_json(documents.report(last, starts))
        return
    from preheat.cli.text import show_history, show_report
    from preheat.edges.store.report_file import report_from

    show_report(report_from(last), verbose=options.verbose)
    show_history(starts)


@main.command()
@with_options
def doctor(options: Options) -> None:
    """Say what is wrong with this container, the worst first, each with the command that mends it.

    Needs no manifest, and mends nothing itself. Exit status 9 where something will break a start.
    """
    from preheat.commands.doctor import examine
    from preheat.decisions.health.diagnosis import breaks_a_start

    seen, found = examine(options.invocation)
    if options.as_json:
        print_json(documents.findings(seen, found))
    else:
        from preheat.cli.text_doctor import show_findings

        show_findings(seen, found)
    sys.exit(BREAKS_A_START if breaks_a_start(found) else 0)


@main.command()
@with_options
def build(options: Options) -> None:
    """Build what is compiled against the platform, ahead of time, and keep the wheels in the store.

    For packages with build = true and build-isolation = false. Exit status 3 where one of them
    could not be built.
    """
    from preheat.commands.build import build_wheels

    order = order_of(options.invocation)
    with listening() as listener:
        works = build_wheels(order, listener)
    if options.as_json:
        print_json(documents.works(works))
    else:
        from preheat.cli.text_build import show_works

        show_works(works)
    sys.exit(0 if all(work.ready for work in works) else NOT_READY)


@main.command()
@click.option(
    "--image",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory for the image's part, where the worker will find it.",
)
@click.option(
    "--volume",
    type=click.Path(path_type=Path, file_okay=False),
    help="The store on the volume, likewise. By default its part is left to the first start.",
)
@click.option(
    "--image-budget",
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="What the image's part may take.",
)
@click.option("--dry-run", is_flag=True, help="Show what would go where; write nothing.")
@with_options
def bake(
    options: Options, image: Path, volume: Path | None, image_budget: str, dry_run: bool
) -> None:
    """Put what is required and what is small into a directory of the image, the rest on the volume.

    Exit status 3 where a required package could not be made ready.
    """
    from preheat.commands.bake import Bake

    if options.invocation.store is not None:
        raise click.UsageError("bake takes no --store: --volume names the one on the volume")
    image, store = image.absolute(), volume.absolute() if volume else None
    if store is not None and (image in (store, *store.parents) or store in image.parents):
        raise click.UsageError("--image and --volume are one in the other: name two directories")
    with listening() as listener:
        work = Bake(
            order=order_of(options.invocation, {"store": store}),
            listener=listener,
            image=image,
            volume=store,
            budget=size_of(image_budget),
        )
        baked = work.plan() if dry_run else work.run()
    if options.as_json:
        print_json(documents.baked(baked))
    else:
        from preheat.cli.text_bake import show_baked

        show_baked(baked)
    sys.exit(0 if baked.ready else NOT_READY)


@main.command()
@click.option("--write", is_flag=True, help="Add the exclude lines to the manifest.")
@with_options
def slim(options: Options, write: bool) -> None:
    """Show what in the layers no promised import and no check loads, and what can be left out.

    Whole distributions, each with its bytes; all imports and checks are proved without them. The
    layers stay as they are: the next start makes slimmer ones, once the manifest says so.
    """
    from preheat.commands.slim import Slimmer

    order = order_of(options.invocation)
    with listening() as listener:
        found = Slimmer(order, listener).find()
    if options.as_json:
        print_json(documents.slimming(found))
    else:
        from preheat.cli.text_slim import show_slimming

        show_slimming(found, {each.name: each.exclude for each in order.manifest.package})
    if write and found.excludes:
        from preheat.edges.manifest.edit import add_excludes

        add_excludes(order.manifest_file, found.excludes)
