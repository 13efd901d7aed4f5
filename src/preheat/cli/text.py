"""Plans and reports as text for people; the data is the same that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from preheat.cli.tables import console, mb_or_dash, megabytes, printable, table
from preheat.words.cleaning import Estimate, Freed
from preheat.words.plan import Action, Plan, Shadow, Step
from preheat.words.report import PackageReport, Report, StageReport, VolumeReport

if TYPE_CHECKING:
    from preheat.commands.status import Status

_STYLE = {
    "platform": "green",
    "reused": "green",
    "reuse": "green",
    "installed": "green",
    "install": "cyan",
    "skipped": "yellow",
    "skip": "yellow",
    "failed": "red",
}


def show_plan(plan: Plan, report: Report, *, verbose: bool = False) -> None:
    """What would be done, why, from where, how much, and whether it fits."""
    out = console()
    rows = table(
        *("package", "version", "plan", "from", "fetch MB", "disk MB", "fits", "why"),
        right=("fetch MB", "disk MB"),
    )
    for step in plan.steps:
        rows.add_row(
            step.package.name + (" *" if step.package.required else ""),
            step.version or "-",
            Text(step.action.value, style=_STYLE[step.action.value]),
            _origin(step),
            mb_or_dash(step.download),
            mb_or_dash(step.disk, exact=step.exact),
            "yes" if step.action is not Action.SKIP else "-" if not step.disk else "no",
            step.reason,
        )
    out.print(rows)
    for step in plan.steps:
        _show_shadows(out, step.package.name, step.shadows)
    _show_stand_ins(out, report)
    for need in plan.needs:
        note = "" if need.quota_known else " (a quota may leave less)"
        out.print(
            f"{need.path} ({need.role}; {need.kind}): {mb_or_dash(need.bytes)} MB and "
            f"{need.inodes:,} files of {mb_or_dash(need.free)} MB free{note}"
            + (f", {mb_or_dash(need.reserve)} MB stay free" if need.reserve else "")
        )
    if any(step.action is Action.INSTALL for step in plan.steps):
        out.print(
            "files are linked from the engine's cache into layers, and take no space twice"
            if plan.links
            else "files are copied from the engine's cache into layers: no hardlinks between them"
        )
    if verbose:
        _show_traces(out, report)
    out.print(_platform_line(report))
    if any(step.package.required for step in plan.steps):
        out.print("* required")


def show_report(report: Report, *, verbose: bool = False) -> None:
    """What was found, decided, done and proved."""
    out = console()
    rows = table(
        *("package", "version", "status", "disk MB", "planned", "seconds", "reason"),
        right=("disk MB", "planned", "seconds"),
    )
    for package in report.packages:
        rows.add_row(
            package.name + (" *" if package.required else ""),
            package.version or "-",
            Text(package.status, style=_STYLE[package.status]),
            mb_or_dash(package.bytes_actual),
            mb_or_dash(package.bytes_predicted, exact=package.exact),
            _seconds(package),
            package.reason,
        )
    out.print(rows)
    for package in report.packages:
        _show_shadows(out, package.name, package.shadows)
    _show_stand_ins(out, report)
    if verbose:
        _show_traces(out, report)
    for capability, name in report.capabilities.items():
        out.print(f"{capability}: {name or 'nothing here can do it'}")
    if report.stages:
        stages = ", ".join(map(_stage, report.stages))
        out.print(f"stages: {stages}")
    for volumes in _by_filesystem(report.volumes):
        first = volumes[0]
        roles = ", ".join(volume.role for volume in volumes)
        out.print(
            f"{first.path} ({roles}{'; ' if first.kind else ''}{first.kind}): "
            f"{megabytes(first.before)} MB free before, {megabytes(first.after)} after"
            + ("" if first.quota_known else " (a quota may leave less)")
        )
    if report.platform is not None:
        out.print(_platform_line(report))
    if any(package.required for package in report.packages):
        out.print("* required")
    out.print(_verdict(report))


def show_history(history: Sequence[dict[str, object]]) -> None:
    """How many starts were ready, and how many were warm."""
    ready = sum(bool(line.get("ready")) for line in history)
    warm = sum(bool(line.get("warm")) for line in history)
    if history:
        console().print(
            f"{len(history)} starts remembered: {ready} ready ({ready / len(history):.0%}), "
            f"{warm} warm; the last one was {'warm' if history[-1].get('warm') else 'cold'}"
            f"{_when(history[-1])}"
        )


def _stage(stage: StageReport) -> str:
    text = f"{stage.name} {stage.seconds:.2f} s"
    if not stage.bytes_predicted:
        return text
    predicted, actual = (
        mb_or_dash(stage.bytes_predicted),
        mb_or_dash(stage.bytes_actual),
    )
    return (
        f"{text} ({predicted} MB predicted, {actual} MB written; "
        f"{mb_or_dash(stage.download)} MB to fetch, {mb_or_dash(stage.fetched)} MB fetched)"
    )


def _when(line: Mapping[str, object]) -> str:
    """When that start began, for people."""
    started = line.get("started")
    if not isinstance(started, int | float):
        return ""
    return f", on {datetime.fromtimestamp(started, timezone.utc):%Y-%m-%d at %H:%M:%S} UTC"


def show_status(status: Status) -> None:
    """Every setting and where its value came from, and whether the next startup is warm."""
    out = console()
    rows = table("setting", "value", "from")
    for row in status.settings:
        rows.add_row(*row)
    out.print(rows)
    out.print(Text(f"manifest: {status.manifest}"), soft_wrap=True)
    if not status.why_cold:
        told = "the next start is warm"
    elif status.unpacks:
        told = f"the next start unpacks first: {status.why_cold}"
    else:
        told = f"the next start is cold: {status.why_cold}"
    out.print(Text(told), soft_wrap=True)


def show_estimates(estimates: Iterable[Estimate]) -> None:
    """What could be freed, the cheapest loss first."""
    rows = table("tier", "MB", "loss", "what", right=["MB"])
    for each in estimates:
        shown = ", ".join(escape(printable(path)) for path in each.paths[:3])
        shown += f" and {len(each.paths) - 3} more" if len(each.paths) > 3 else ""
        rows.add_row(each.tier.name, mb_or_dash(each.bytes), each.tier.loss, shown or "nothing")
    console().print(rows)


def show_freed(freed: Freed) -> None:
    """What was freed, as the filesystem measured it."""
    out = console()
    rows = table("tier", "MB", right=["MB"])
    for name, size in freed.tiers:
        rows.add_row(name, mb_or_dash(size))
    out.print(rows)
    out.print(f"{megabytes(freed.before)} MB free before, {megabytes(freed.after)} after")


def _show_shadows(out: Console, package: str, shadows: Sequence[Shadow]) -> None:
    if shadows:
        out.print(f"{package} brings {', '.join(map(str, shadows))}")


def _show_stand_ins(out: Console, report: Report) -> None:
    """What is not installed, since the platform has the same libraries; and what that spares."""
    for package in report.packages:
        if package.stand_ins:
            names = (f"{each.name} {each.version} of {each.place}" for each in package.stand_ins)
            out.print(f"{package.name} uses the platform's {', '.join(names)}")
    spared = sum(package.bytes_spared for package in report.packages)
    if spared:
        out.print(f"{megabytes(spared)} MB of CUDA libraries are the platform's, and in no layer")


def _by_filesystem(volumes: Iterable[VolumeReport]) -> list[list[VolumeReport]]:
    """Roles that share a filesystem: the same numbers before and after."""
    groups: dict[tuple[str, int], list[VolumeReport]] = {}
    for volume in volumes:
        groups.setdefault((volume.kind, volume.before), []).append(volume)
    return list(groups.values())


def _show_traces(out: Console, report: Report) -> None:
    for package in report.packages:
        if package.trace:
            out.print(Text(f"\n{package.name}:\n{package.trace}\n", style="dim"))


def _origin(step: Step) -> str:
    if step.action is Action.PLATFORM:
        return "platform"
    if step.action is Action.REUSE:
        return f"layer {step.layer[:8]}" if step.layer else "platform"
    return "index" if step.action is Action.INSTALL else "-"


def _seconds(package: PackageReport) -> str:
    total = sum(package.seconds.values())
    if not total:
        return "-"
    return f"{total:.1f}"


def _platform_line(report: Report) -> str:
    platform = report.platform
    if platform is None:
        return ""
    torch = f"torch {platform.torch}" if platform.torch else "no torch"
    gpus = ", ".join(platform.gpus) or "no GPU"
    lines = [
        f"platform: Python {platform.python}, {platform.libc}, {torch}, {gpus}, "
        f"{platform.distributions} distributions, {len(platform.protected)} protected"
    ]
    facts = ", ".join(f"{f.name} {f.value} ({f.source})" for f in platform.facts)
    lines += [f"CUDA: {facts}"] if facts else []
    lines += [f"left behind on the platform: {left}" for left in platform.leftovers]
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    how = "warm" if report.warm else "cold"
    return f"{'ready' if report.ready else 'NOT READY'} in {report.seconds:.2f} s, {how}"
