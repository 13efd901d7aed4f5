"""What ``--json`` prints, command by command: documents of plain values, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preheat.commands.lock import Written
    from preheat.commands.status import Status
    from preheat.words.baking import Baked
    from preheat.words.building import Work
    from preheat.words.cleaning import Estimate, Freed
    from preheat.words.diagnosis import Finding
    from preheat.words.examination import Examination, StoreState
    from preheat.words.plan import Plan
    from preheat.words.platform import Platform
    from preheat.words.report import Report
    from preheat.words.slim import Slimming


def plan(made: Plan, report: Report) -> dict[str, object]:
    """The report of a startup that has not happened, and what it takes from each volume."""
    needs = [{**asdict(need), "fits": need.fits} for need in made.needs]
    return {**asdict(report), "ready": made.ready, "needs": needs}


def status(found: Status) -> dict[str, object]:
    """Every setting, and whether the next startup is warm."""
    rows = found.settings
    return {
        "manifest": str(found.manifest),
        "warm": not found.why_cold,
        "why_cold": found.why_cold,
        "settings": [{"key": k, "value": v, "source": s} for k, v, s in rows],
    }


def lock(written: Written) -> dict[str, object]:
    """What was locked, and what could not be."""
    found = [{"name": d.name, "version": d.version} for d in written.lock.distributions]
    return {
        "file": str(written.file),
        "distributions": found,
        "refused": dict(written.lock.refused),
    }


def estimates(found: Sequence[Estimate]) -> dict[str, object]:
    """What could be freed, the cheapest loss first."""
    tiers = [
        {"name": e.tier.name, "loss": e.tier.loss, "bytes": e.bytes, "paths": e.paths}
        for e in found
    ]
    return {"tiers": tiers}


def freed(gone: Freed, lacking: int) -> dict[str, object]:
    """What was freed, and how many bytes are lacking all the same."""
    return {
        "freed": gone.bytes,
        "tiers": dict(gone.tiers),
        "before": gone.before,
        "after": gone.after,
        "lacking": lacking,
    }


def report(last: Mapping[str, Any], starts: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """The last cold startup's report, and how many startups were ready and warm."""
    ready = sum(bool(line.get("ready")) for line in starts)
    warm = sum(bool(line.get("warm")) for line in starts)
    return {**last, "history": {"starts": len(starts), "ready": ready, "warm": warm}}


def findings(seen: Examination, found: Sequence[Finding]) -> dict[str, object]:
    """The findings in their order, and what was looked at."""
    from preheat.decisions.health.diagnosis import breaks_a_start

    return {
        "breaks_a_start": breaks_a_start(found),
        "findings": [
            {
                "code": finding.code.value,
                "harm": finding.harm.value,
                "what": finding.what,
                "why": finding.why,
                "mend": finding.mend,
            }
            for finding in found
        ],
        "platform": _platform(seen, seen.platform) if seen.platform else None,
        "store": _store(seen.store) if seen.store else None,
    }


def _platform(seen: Examination, platform: Platform) -> dict[str, object]:
    return {
        "executable": seen.tools.python,
        "python": platform.interpreter.version,
        "torch": platform.torch.version if platform.torch else None,
        "driver": platform.accelerator.driver,
        "gpus": [gpu.name for gpu in platform.accelerator.gpus],
        "distributions": len(seen.installed),
        "cuda": [
            {"name": name, "value": fact.value, "source": fact.source}
            for name, fact in platform.cuda.rows()
        ],
    }


def _store(store: StoreState) -> dict[str, object]:
    return {
        "path": store.root,
        "local": store.local,
        "layers": len(store.layers),
        "packs": len(store.packs),
        "volumes": {
            role: {"path": volume.path, "kind": volume.kind, "free": volume.free}
            for role, volume in store.volumes.items()
        },
    }


def works(done: Sequence[Work]) -> dict[str, object]:
    """What became of each wheel that was to be built."""
    return {"ready": all(work.ready for work in done), "wheels": [_work(work) for work in done]}


def _work(work: Work) -> dict[str, Any]:
    row = asdict(work)
    if work.provenance is not None:
        device = work.provenance.device
        row["provenance"]["device"] = {
            "cubins": sorted(device.cubins),
            "ptx": sorted(device.ptx),
        }
    return {**row, "ready": work.ready}


def baked(parts: Baked) -> dict[str, object]:
    """What goes into the image and what onto the volume."""
    return {
        "ready": parts.ready,
        "image": {
            "path": str(parts.image),
            "budget": parts.budget,
            "bytes": parts.size("image"),
        },
        "volume": {
            "path": str(parts.volume) if parts.volume else None,
            "bytes": parts.size("volume"),
        },
        "packages": [asdict(each) for each in parts.placements],
        "dockerfile": list(parts.dockerfile),
    }


def slimming(found: Slimming) -> dict[str, object]:
    """What the layers could do without, and the excludes that leave it out."""
    return {
        **asdict(found),
        "removable": found.removable,
        "exclude": {package: list(names) for package, names in found.excludes.items()},
    }
