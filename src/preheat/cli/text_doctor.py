"""What a doctor found, for people: the worst first, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from preheat.cli.text import console
from preheat.words.diagnosis import Finding, Harm
from preheat.words.examination import Examination, StoreState

_STYLE = {Harm.START: "bold red", Harm.USE: "red", Harm.COST: "yellow", Harm.NOTE: "dim"}


def show_findings(seen: Examination, findings: Sequence[Finding]) -> None:
    """What was looked at, then every finding; a command stands on lines of its own, to copy."""
    out = console()
    for line in _looked_at(seen):
        out.print(Text(line))
    for finding in findings:
        head = Text(f"\n{finding.harm.value}", style=_STYLE[finding.harm])
        head.append(f"  {finding.code.value}\n", style="dim")
        head.append(f"  {_plain(finding.what)}\n", style="bold")
        head.append(f"  {_plain(finding.why)}\n", style="none")
        out.print(head, end="", soft_wrap=True)
        for line in finding.mend.splitlines():
            out.print(Text(f"    {line}", style="cyan"), soft_wrap=True)
    out.print(Text(f"\n{_summary(findings)}" if findings else _summary(findings)))


def as_document(seen: Examination, findings: Sequence[Finding]) -> dict[str, object]:
    """The same as data: what was looked at, and the findings in their order."""
    platform, store = seen.platform, seen.store
    return {
        "findings": [
            {
                "code": finding.code.value,
                "harm": finding.harm.value,
                "what": finding.what,
                "why": finding.why,
                "mend": finding.mend,
            }
            for finding in findings
        ],
        "platform": None
        if platform is None
        else {
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
        },
        "store": None
        if store is None
        else {
            "path": store.root,
            "local": store.local,
            "layers": len(store.layers),
            "packs": len(store.packs),
            "volumes": {
                role: {"path": volume.path, "kind": volume.kind, "free": volume.free}
                for role, volume in store.volumes.items()
            },
        },
    }


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
        where = f" ({volume.kind}, {volume.free / 1e6:,.0f} MB free)" if volume else ""
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


def _plain(text: str) -> str:
    """Any name as printable text."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
