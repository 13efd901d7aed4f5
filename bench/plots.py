"""Plots of the figures that were kept, as PNG and SVG, with their JSON beside them in docs/figures.

Needs matplotlib, which is installed now where it is missing. What was not measured here is drawn
from the JSON of an earlier time.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench import ground

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = ground.PROJECT / "docs" / "figures"
OURS, THEIRS, QUIET, TEXT = "#d9480f", "#8a94a6", "#dee2e6", "#212529"
SHADES = ("#d9480f", "#f08c00", "#2b8a3e", "#1971c2", "#6741d9", "#c2255c")


def measure() -> None:
    """Draw everything that there are figures of."""
    if importlib.util.find_spec("matplotlib") is None:
        group = f"{ground.PROJECT / 'pyproject.toml'}:bench"
        ground.uv("pip", "install", "--quiet", "--python", sys.executable, "--group", group)
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        kept = FIGURES / f"{name}.json"
        fresh = ground.BUILD / kept.name
        if fresh.exists():
            shutil.copyfile(fresh, kept)
        if not kept.exists():
            print(f"no figures yet: {name}; make them with: python -m bench {name}")
            continue
        draw(name, json.loads(kept.read_text(encoding="utf-8")))
        print(f"drawn: {(FIGURES / name).relative_to(ground.PROJECT)}.svg, .png")


def bars(axes: Axes, rows: Mapping[str, float], unit: str, spread: Sequence[float] = ()) -> None:
    """Horizontal bars, the first on top, with their values; ours stand out.

    Args:
        axes: where to draw.
        rows: name to value.
        unit: of the values, written after each.
        spread: twice as many values as rows: the least and the most of each; or none.
    """
    names = list(rows)
    colours = [OURS if name.startswith("preheat") else THEIRS for name in names]
    axes.barh(names, list(rows.values()), color=colours, height=0.62)
    for place, value in enumerate(rows.values()):
        end = value
        if spread:
            least, end = spread[2 * place], spread[2 * place + 1]
            axes.plot([least, end], [place, place], color=TEXT, linewidth=1.2)
        axes.annotate(
            f"{_short(value)} {unit}", (end, place), (6, 0), textcoords="offset points", va="center"
        )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max([*rows.values(), *spread]))
    axes.xaxis.set_visible(False)
    axes.tick_params(axis="y", length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def draw_warm(name: str, figures: Mapping[str, Any]) -> None:
    """What a warm start adds, beside the no-ops."""
    added = {"preheat, added to a process": figures["inside_ms"]["added"]["median"]}
    walls = {f"{who}, whole process": each["median"] for who, each in figures["wall_ms"].items()}
    title = f"A warm start of {len(figures['packages'])} packages (milliseconds, medians)"
    _draw(name, title, lambda axes: bars(axes, added | walls, "ms"), rows=1 + len(walls))


def draw_seconds(name: str, figures: Mapping[str, Any]) -> None:
    """Seconds of each contestant, with the least and the most."""
    seconds: Mapping[str, Sequence[float]] = figures["seconds"]
    rows = {who: statistics.median(each) for who, each in seconds.items()}
    spread = [value for each in seconds.values() for value in (min(each), max(each))]
    title = _TITLES[name].format(packages=", ".join(figures["packages"]))
    _draw(name, title, lambda axes: bars(axes, rows, "s", spread), rows=len(rows))


def draw_second(name: str, figures: Mapping[str, Any]) -> None:
    """Until ready, and until imported."""
    rows = {}
    for who, each in figures["seconds"].items():
        ready, imported = (statistics.median(each[what]) for what in ("ready", "imported"))
        rows[f"{who}, ready"] = ready
        rows[f"{who}, then imported"] = ready + imported
    title = _TITLES[name].format(packages=", ".join(figures["packages"]))
    _draw(name, title, lambda axes: bars(axes, rows, "s"), rows=len(rows))


def draw_volume(name: str, figures: Mapping[str, Any]) -> None:
    """Until imported, for each volume and form of the layer."""
    forms = {
        "directory": 'used in place, layers = "directory"',
        "packed": "packed, unpacked first",
    }
    rows = {
        f"{volume}: {forms[form]}": statistics.median(each["imported"])
        for volume, ways in figures["seconds"].items()
        for form, each in ways.items()
    }
    title = "A worker on a volume that another has filled, until transformers is imported"
    _draw(name, title, lambda axes: bars(axes, rows, "s"), rows=len(rows))


def draw_slim(name: str, figures: Mapping[str, Any]) -> None:
    """Payloads in megabytes."""
    rows = {who: each["bytes"] / 1e6 for who, each in figures["payload"].items()}
    title = "Payload around a platform with CUDA torch (MB, without bytecode)"
    _draw(name, title, lambda axes: bars(axes, rows, "MB"), rows=len(rows))


def draw_peak(name: str, figures: Mapping[str, Any]) -> None:
    """The most that is taken over what is installed, for each contender and filesystem."""
    rows = {who: each["peak"] / each["installed"] for who, each in figures["bytes"].items()}
    title = f"Peak over installed bytes: {', '.join(figures['packages'])}"
    _draw(name, title, lambda axes: bars(axes, rows, "times"), rows=len(rows))


def draw_growth(name: str, figures: Mapping[str, Any]) -> None:
    """Curves against the number of distributions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = (
        ("plan", "plan, seconds"),
        ("locked", "plan --locked, seconds"),
        ("warm_ms", "warm start, ms"),
    )
    for axes, (key, label) in zip(figure.subplots(1, 3), panels, strict=True):
        for where, colour in (("in the layer", OURS), ("on the platform", THEIRS)):
            rows = {
                int(row.split()[0]): each[key]
                for row, each in figures["medians"].items()
                if row.endswith(where)
            }
            counts = sorted(rows)
            axes.plot(counts, [rows[n] for n in counts], "o-", color=colour, label=where)
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.set_title(label, fontsize=10, loc="left")
        axes.grid(axis="y", color=QUIET)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.supxlabel("distributions", fontsize=10)
    _save(name, figure)


def draw_imports(name: str, figures: Mapping[str, Any]) -> None:
    """Each import's seconds by the largest owners, as one bar."""
    from matplotlib.figure import Figure

    imports: Mapping[str, Any] = figures["imports"]
    figure = Figure(figsize=(9, 1.1 + 0.75 * len(imports)), layout="constrained")
    axes = figure.subplots()
    widest = max(each["before"]["seconds"] for each in imports.values())
    for place, each in enumerate(found["before"] for found in imports.values()):
        left = 0.0
        largest = list(each["costliest"].items())[: len(SHADES)]
        rest = each["seconds"] - sum(seconds for _, seconds in largest)
        for (owner, seconds), colour in zip(
            [*largest, ("others", rest)], [*SHADES, QUIET], strict=False
        ):
            axes.barh(place, seconds, left=left, color=colour, height=0.6)
            if seconds > widest / 14:
                ink = TEXT if colour == QUIET else "white"
                middle = left + seconds / 2
                axes.text(middle, place, owner, color=ink, ha="center", va="center", fontsize=8)
            left += seconds
        label = f"{each['seconds']:.1f} s, {each['modules']:,} modules"
        axes.annotate(label, (left, place), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(imports)), list(imports))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * widest)
    axes.xaxis.set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Where the seconds of an import go", loc="left", fontsize=11)
    _save(name, figure)


def _draw(name: str, title: str, draw: Callable[[Axes], None], *, rows: int) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.8 + 0.42 * rows), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_title(title, loc="left", fontsize=11)
    _save(name, figure)


def _save(name: str, figure: Any) -> None:
    import matplotlib as mpl

    # The same figures give the same bytes.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None}, facecolor="white")
        figure.savefig(FIGURES / f"{name}.png", dpi=110, facecolor="white")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


_TITLES = {
    "cold": "Cold start, until imported: {packages}",
    "cold-four": "Cold start, until imported: {packages}",
    "cold-four-1-gbit": "Cold start at 1 Gbit/s, until imported: {packages}",
    "plan": "A plan, whole process: {packages}",
    "second": "A second worker: {packages}",
}
PLOTS: Mapping[str, Callable[[str, Mapping[str, Any]], None]] = {
    "warm": draw_warm,
    "cold": draw_seconds,
    "cold-four": draw_seconds,
    "cold-four-1-gbit": draw_seconds,
    "second": draw_second,
    "plan": draw_seconds,
    "volume": draw_volume,
    "slim": draw_slim,
    "peak": draw_peak,
    "growth": draw_growth,
    "imports": draw_imports,
}
