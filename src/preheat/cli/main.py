"""The command line: parse, call, render, exit. Data goes to stdout, everything else to stderr.

Exit status: 0 everything required is ready; 1 an error of preheat's own; 2 wrong usage or
manifest; 3 a required package could not be made ready; 4 the store; 5 the platform; 6 the lock;
7 the index or the resolution; 8 an installation; 9 `preheat doctor` found what breaks a start;
130 interrupted.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

# preheat may be installed in the platform itself, and nothing there is written to.
sys.dont_write_bytecode = True

import click

from preheat import __version__, lease, pointer, start
from preheat.cli.options import (
    Options,
    check_deadline,
    common,
    known_manifest,
    listening,
    manifest_of,
    order_of,
    print_json,
    same_place,
    settings_of,
    size_of,
    stated,
)
from preheat.words.errors import PlatformError, RequiredPackageError, StoreError

if TYPE_CHECKING:
    from preheat.words.plan import Plan

# A plan is made of some hundred thousand small values that stay to its end: looking through them
# for what may go takes an eighth of its time.
gc.set_threshold(200_000)

NOT_READY = RequiredPackageError.exit_status
BREAKS_A_START = 9


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="preheat")
def main() -> None:
    """Make heavy Python packages importable at a worker's start, around its platform."""


@main.command()
@click.option("--locked", is_flag=True, help="Use the lock beside the manifest, or fail.")
@common
def plan(options: Options, locked: bool) -> None:
    """Show what a start would do and what it takes; nothing is changed."""
    from preheat.edges.engine.lock_file import NAME
    from preheat.making.provision import Provision

    order = order_of(options, {}, locked=NAME if locked else None)
    with listening() as listen:
        made, report = Provision(order, listen).plan()
    if options.as_json:
        print_json({**asdict(report), "ready": made.ready, "needs": _needs(made)})
    else:
        from preheat.cli.text import show_plan

        show_plan(made, report, verbose=bool(options.verbose))
    sys.exit(0 if made.ready else NOT_READY)


@main.command()
@click.option(
    "--deadline",
    metavar="DURATION",
    help="Optional packages are not waited for longer than that: --deadline 90s.",
)
@click.option("--retry", is_flag=True, help="Try what failed before; resolve anew.")
@click.option("--locked", is_flag=True, help="Use the lock beside the manifest, or fail.")
@click.option("--cold", is_flag=True, help="Go the long way even where the pointer is valid.")
@common
def warm(options: Options, deadline: str | None, retry: bool, locked: bool, cold: bool) -> None:
    """Make the manifest's packages ready."""
    begin = time.perf_counter()
    check_deadline(deadline)
    document = None if retry or cold or locked else _follow(options, begin)
    if document is None:
        document = _go_cold(options, {"deadline": deadline}, retry=retry, locked=locked)
    if options.as_json:
        print_json(document)
    else:
        from preheat.cli.text import show_report
        from preheat.edges.store.report_file import report_from

        show_report(report_from(document), verbose=bool(options.verbose))
    if not document["ready"]:
        click.echo(f"preheat: {start.required_error(document['packages'], hint='')}", err=True)
    sys.exit(0 if document["ready"] else NOT_READY)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--deadline",
    metavar="DURATION",
    help="Optional packages are not waited for longer than that: --deadline 90s.",
)
@click.option("--retry", is_flag=True, help="Try what failed before; resolve anew.")
@click.option("--locked", is_flag=True, help="Use the lock beside the manifest, or fail.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@common
def run(
    options: Options,
    deadline: str | None,
    retry: bool,
    locked: bool,
    command: tuple[str, ...],
) -> None:
    """Warm, then become COMMAND with everything on its path."""
    begin = time.perf_counter()
    check_deadline(deadline)
    document = None if retry or locked else _follow(options, begin)
    if document is None:
        document = _go_cold(options, {"deadline": deadline}, retry=retry, locked=locked)
    if not document["ready"]:
        raise start.required_error(document["packages"], hint="the whole report: preheat report")
    for package in map(start.PackageState, document["packages"]):
        if not package.ok:
            click.echo(f"preheat: not available: {package.name}: {package.reason}", err=True)
    held = _held(document)
    if held is None:
        # A collector was faster; what it took is made again.
        document = _go_cold(options, {"deadline": deadline}, retry=retry, locked=locked)
        held = _held(document) or lease.Lease.none()
    environment = _environment_of(document)
    if document["shared"]:
        environment[lease.SHARED] = held.file
    held.outlive_exec()
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606  # becoming it is the job
    except OSError as error:
        missing_command = isinstance(error, FileNotFoundError)
        click.echo(f"preheat: {shlex.join(command)}: {error.strerror}", err=True)
        sys.exit(127 if missing_command else 126)


@main.command()
@common
def status(options: Options) -> None:
    """Show every setting with where it came from, and whether the next start is warm."""
    from preheat.edges.manifest.file import read_manifest, read_settings

    file = manifest_of(options)
    settings = read_settings(read_manifest(file), stated(options, {}))
    _, why_cold = _pointer(options)
    if options.settings:
        why_cold = "settings are stated by --set, which only a cold start looks at"
    rows = settings.rows()
    if options.as_json:
        print_json(
            {
                "manifest": str(file),
                "warm": not why_cold,
                "why_cold": why_cold,
                "settings": [{"key": k, "value": v, "source": s} for k, v, s in rows],
            }
        )
        return
    from preheat.cli.text import show_settings

    show_settings(rows)
    click.echo(f"manifest: {file}")
    if why_cold == pointer.UNPACK:
        click.echo(f"the next start unpacks first: {why_cold}")
    else:
        click.echo(f"the next start is cold: {why_cold}" if why_cold else "the next start is warm")


@main.command()
@common
def lock(options: Options) -> None:
    """Write a lock (PEP 751) with sizes and hashes beside the manifest."""
    from preheat.edges.engine.lock_file import NAME
    from preheat.making.provision import Provision

    order = order_of(options, {}, locked=None)
    file = order.manifest_file.parent / NAME
    with listening() as listen:
        made = Provision(order, listen).lock(file)
    refused = dict(made.refused)
    if options.as_json:
        found = [{"name": d.name, "version": d.version} for d in made.distributions]
        print_json({"file": str(file), "distributions": found, "refused": refused})
    else:
        click.echo(f"{file}: {len(made.distributions)} distributions")
        for name, reason in refused.items():
            click.echo(f"not in it: {name}: {reason}")
    required = {package.name for package in order.manifest.package if package.required}
    sys.exit(NOT_READY if required & refused.keys() else 0)


@main.command()
@click.option("--dry-run", is_flag=True, help="Show what would be freed; free nothing.")
@click.option("--need", metavar="SIZE", help="Stop when that much is free: --need 3GB.")
@common
def clean(options: Options, dry_run: bool, need: str | None) -> None:
    """Free leftovers and caches, the cheapest loss first.

    Exit status 4 where --need cannot be met; what could go has gone then.
    """
    from preheat.cli.text import show_estimates, show_freed
    from preheat.edges.cleaning.cleaner import Cleaner
    from preheat.edges.platform.probe import ask_interpreter
    from preheat.edges.store.open import open_store

    settings = settings_of(options)
    try:
        sites = ask_interpreter(options.python).sites
    except PlatformError:
        # Cleaning must be possible whatever is broken.
        sites = ()
    cleaner = Cleaner(store=open_store(settings), extra=settings.space.clean, sites=sites)
    if dry_run:
        found = cleaner.survey_for(size_of(need)) if need else cleaner.survey()
        if options.as_json:
            tiers = [
                {"name": e.tier.name, "loss": e.tier.loss, "bytes": e.bytes, "paths": e.paths}
                for e in found
            ]
            print_json({"tiers": tiers})
        else:
            show_estimates(found)
        return
    wanted = size_of(need) if need else 0
    freed = cleaner.until_free(wanted) if need else cleaner.clean()
    if options.as_json:
        print_json(
            {
                "freed": freed.bytes,
                "tiers": dict(freed.tiers),
                "before": freed.before,
                "after": freed.after,
                "lacking": freed.lacks(wanted),
            }
        )
    else:
        show_freed(freed)
    if freed.lacks(wanted) and options.as_json:
        sys.exit(StoreError.exit_status)
    if freed.lacks(wanted):
        raise StoreError(
            f"{need} are wanted on the filesystem of {settings.store}, and "
            f"{freed.after / 1e6:,.1f} MB are free: nothing more can be given up",
            hint="name caches of your own in [space] clean, or take a larger volume",
        )


@main.command()
@click.option("--history", is_flag=True, help="One line for each start that is remembered.")
@common
def report(options: Options, history: bool) -> None:
    """Show the last start, and how the starts before it went."""
    from preheat.cli.text import show_history, show_report
    from preheat.edges.store.report_file import last_report, report_from
    from preheat.edges.store.store import Store

    store = Store(settings_of(options).store)
    starts = store.history.starts()
    if history:
        for line in starts:
            click.echo(json.dumps(line))
        return
    document = last_report(store, manifest_of(options), options.python)
    if options.as_json:
        ready = sum(bool(line.get("ready")) for line in starts)
        warm_starts = sum(bool(line.get("warm")) for line in starts)
        document["history"] = {"starts": len(starts), "ready": ready, "warm": warm_starts}
        print_json(document)
        return
    show_report(report_from(document), verbose=bool(options.verbose))
    show_history(starts)


@main.command()
@common
def doctor(options: Options) -> None:
    """Say what is wrong with this container, the worst first, each with the command that mends it.

    Needs no manifest, and mends nothing itself. Exit status 9 where something will break a start.
    """
    from preheat.commands.doctor import Patient, findings
    from preheat.decisions.health.diagnosis import breaks_a_start

    file = known_manifest(options)
    seen, found = findings(
        Patient(
            manifest=file,
            executable=options.python,
            command_line=stated(options, {}),
            options=same_place(options, file),
        )
    )
    breaks = breaks_a_start(found)
    if options.as_json:
        from preheat.cli.text_doctor import as_document

        print_json({"breaks_a_start": breaks, **as_document(seen, found)})
    else:
        from preheat.cli.text_doctor import show_findings

        show_findings(seen, found)
    sys.exit(BREAKS_A_START if breaks else 0)


@main.command()
@common
def build(options: Options) -> None:
    """Build what is compiled against the platform, ahead of time, and keep the wheels in the store.

    For packages with build = true and build-isolation = false. Exit status 3 where one of them
    could not be built.
    """
    from preheat.making.provision import Provision

    order = order_of(options, {}, locked=None)
    with listening() as listen:
        works = Provision(order, listen).build()
    if options.as_json:
        from preheat.cli.text_build import as_document

        print_json(as_document(works))
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
@common
def bake(
    options: Options, image: Path, volume: Path | None, image_budget: str, dry_run: bool
) -> None:
    """Put what is required and what is small into a directory of the image, the rest on the volume.

    Exit status 3 where a required package could not be made ready.
    """
    from preheat.commands.bake import Bake

    if options.store is not None:
        raise click.UsageError("bake takes no --store: --volume names the one on the volume")
    image, store = image.absolute(), volume.absolute() if volume else None
    if store is not None and (image in (store, *store.parents) or store in image.parents):
        raise click.UsageError("--image and --volume are one in the other: name two directories")
    with listening() as listen:
        work = Bake(
            order=order_of(options, {"store": store}, locked=None),
            listener=listen,
            image=image,
            volume=store,
            budget=size_of(image_budget),
        )
        baked = work.plan() if dry_run else work.run()
    if options.as_json:
        from preheat.cli.text_bake import as_document

        print_json(as_document(baked))
    else:
        from preheat.cli.text_bake import show_baked

        show_baked(baked)
    sys.exit(0 if baked.ready else NOT_READY)


@main.command()
@click.option("--write", is_flag=True, help="Add the exclude lines to the manifest.")
@common
def slim(options: Options, write: bool) -> None:
    """Show what in the layers no promised import and no check loads, and what can be left out.

    Whole distributions, each with its bytes; all imports and checks are proved without them. The
    layers stay as they are: the next start makes slimmer ones, once the manifest says so.
    """
    from preheat.commands.slim import Slimmer

    order = order_of(options, {}, locked=None)
    with listening() as listen:
        found = Slimmer(order, listen).find()
    if options.as_json:
        from preheat.cli.text_slim import as_document

        print_json(as_document(found))
    else:
        from preheat.cli.text_slim import show_slimming

        show_slimming(found, {each.name: each.exclude for each in order.manifest.package})
    if write and found.excludes:
        from preheat.edges.manifest.edit import add_excludes

        add_excludes(order.manifest_file, found.excludes)


def _follow(options: Options, begin: float) -> dict[str, Any] | None:
    """The short path: what the pointer says, where it is valid and no setting is stated here."""
    facts, why = (None, "") if options.settings else _pointer(options)
    if facts is None or (why and not _unpacked(options, facts)):
        return None
    pointer.note(facts, warm=not why)
    volume = _free(facts["store"])
    return {
        "schema": facts["schema"],
        "ready": all(p.ok for p in map(start.PackageState, facts["packages"]) if p.required),
        "warm": not why,
        "seconds": round(time.perf_counter() - begin, 6),
        "packages": [{**p, "bytes_predicted": 0, "bytes_actual": 0} for p in facts["packages"]],
        "capabilities": facts["capabilities"],
        "paths": facts["layers"],
        "volumes": [volume],
        "bootstrap": facts["bootstrap"],
        "store": facts["store"],
        "local": facts["local"],
        "shared": facts["shared"],
    }


def _pointer(options: Options) -> tuple[dict[str, Any] | None, str]:
    interpreter = pointer.running()
    if options.python != sys.executable:
        from preheat.edges.platform.probe import ask_interpreter

        asked = ask_interpreter(options.python)
        interpreter = (asked.full_version, asked.prefix, asked.cache_tag)
    named = str(options.store.absolute()) if options.store else None
    return pointer.examine(str(manifest_of(options)), named, interpreter)


def _go_cold(
    options: Options, extra: Mapping[str, object], *, retry: bool, locked: bool
) -> dict[str, Any]:
    from preheat.edges.engine.lock_file import NAME
    from preheat.making.provision import Provision

    _end_when_told()
    order = order_of(options, extra, locked=NAME if locked else None, retry=retry)
    with listening() as listen:
        made = Provision(order, listen).warm()
    return asdict(made)


def _unpacked(options: Options, facts: Mapping[str, Any]) -> bool:
    """Whether all that a start lacked is there now; where not, a cold start can still do much."""
    from preheat.making.unpack import unpack_layers

    _end_when_told()
    with listening() as listen:
        return unpack_layers(facts, settings_of(options), options.python, listen)


def _end_when_told() -> None:
    import signal

    from preheat.edges.process.child import end_with_parent

    # A platform that stops a worker sends this first: leave as Ctrl-C does, with nothing behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_parent()


def _held(document: Mapping[str, Any]) -> lease.Lease | None:
    return start.hold({**document, "layers": document["paths"]})


def _environment_of(document: Mapping[str, Any]) -> dict[str, str]:
    from preheat.edges.process.environment import BOOTSTRAP, without_layers

    environment = without_layers(os.environ)
    if "PYTHONDONTWRITEBYTECODE" not in os.environ:
        del environment["PYTHONDONTWRITEBYTECODE"]
    bootstrap = document["bootstrap"]
    rest = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([bootstrap, *([rest] if rest else [])])
    environment[BOOTSTRAP] = bootstrap
    scripts = os.path.join(bootstrap, "bin")
    environment["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    return environment


def _free(store: str) -> dict[str, object]:
    stats = os.statvfs(store)
    free = stats.f_bavail * stats.f_frsize
    return {"role": "store", "path": store, "before": free, "after": free}


def _needs(made: Plan) -> list[dict[str, object]]:
    return [{**asdict(need), "fits": need.fits} for need in made.needs]
