"""What a doctor found, for people: the worst first, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from preheat.cli.tables import console, printable
from preheat.words.diagnosis import Finding, Harm
from preheat.words.examination import Examination, StoreState
from preheat.words.quantities import in_mb

_LINE_BREAK = "\n"
_STYLE = {Harm.START: "bold red", Harm.USE: "red", Harm.COST: "yellow", Harm.NOTE: "dim"}


def show_findings(seen: Examination, findings: Sequence[Finding]) -> None:
    """What was looked at, then every finding; a command stands on lines of its own, to copy."""
    out = console()
    for line in _looked_at(seen):
        out.print(Text(line))
    for finding in findings:
        head = Text(f"\n{finding.harm.value}", style=_STYLE[finding.harm])
        head.append(f"  {finding.code.value}\n", style="dim")
        head.append(f"  {printable(finding.what, keep=_LINE_BREAK)}\n", style="bold")
        head.append(f"  {printable(finding.why, keep=_LINE_BREAK)}\n", style="none")
        out.print(head, end="", soft_wrap=True)
        for line in finding.mend.splitlines():
            out.print(Text(f"    {line}", style="cyan"), soft_wrap=True)
    out.print(Text(f"\n{_summary(findings)}" if findings else _summary(findings)))


def _looked_at(seen: Examination) -> list[str]:
    lines = []
    platform = seen.platform
    if platform is not None:
        torch = f"torch {platform.torch.version}" if platform.torch else "no torch"
        gpus = ", ".join(gpu.name for gpu in platform.accelerator.gpus) or "no GPU"
        lines.append(
            f"platform: {seen.tools.python}, Python {platform.interpreter.version}, {torch}, "
            f"{gpus}, {len(seen.installed)} distributions"
        )
        facts = ", ".join(
            f"{name} {fact.value} ({fact.source})" for name, fact in platform.cuda.rows()
        )
        lines += [f"CUDA: {facts}"] if facts else []
    if seen.store is not None:
        volume = seen.store.volumes.get("store")
        where = f" ({volume.kind}, {in_mb(volume.free)} free)" if volume else ""
        count = len(seen.store.layers)
        lines.append(f"store: {seen.store.root}{where}, {_layers(seen.store, count)}")
    return lines


def _layers(store: StoreState, count: int) -> str:
    told = f"{count} layer{'s' * (count != 1)}"
    if store.local == store.root:
        return told
    return f"{len(store.packs)} packed; {told} unpacked in {store.local}"


def _summary(findings: Sequence[Finding]) -> str:
    if not findings:
        return "nothing is wrong"
    counts = ((harm, sum(finding.harm is harm for finding in findings)) for harm in Harm)
    told = ", ".join(f"{count} {_plural(harm, count)}" for harm, count in counts if count)
    return f"{len(findings)} finding{'s' * (len(findings) != 1)}: {told}"


def _plural(harm: Harm, count: int) -> str:
    if harm is Harm.NOTE or count == 1:
        return harm.value
    verb, _, rest = harm.value.partition(" ")
    return f"{verb.removesuffix('s')} {rest}"
