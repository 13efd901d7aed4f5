"""Distributions that another version hides from those that were built against them."""

from __future__ import annotations

from collections.abc import Iterator

from preheat.decisions.health import remedies
from preheat.decisions.health.bounds import accepts, bounds, major
from preheat.decisions.health.cuda import LEAST_WASTE_BYTES
from preheat.decisions.health.phrases import are, label, listed, size_in_brackets, were
from preheat.words.diagnosis import Finding, FindingCode, Harm
from preheat.words.examination import Examination, Installed
from preheat.words.platform import Distribution


def other_versions(seen: Examination) -> Iterator[Finding]:
    """Copies that an earlier entry of the path hides from what was built against them."""
    for hidden, by in hidden_pairs(seen):
        one, other = hidden.distribution, by.distribution
        harm, hurt = harm_of_other_version(seen, one, other.version or "", hidden.depth)
        if harm is not None:
            yield Finding(
                code=FindingCode.SHADOWED,
                harm=harm,
                what=f"{label(one)} in {one.location} is hidden by {other.version} in "
                f"{other.location}",
                why=f"{hurt} with the hidden one",
                mend=remedies.uninstall(seen.tools, [one.name], other.location),
            )


def hidden_pairs(seen: Examination) -> Iterator[tuple[Installed, Installed]]:
    """Copies that no import sees, in another version, each with the one that hides it."""
    visible = {e.distribution.name: e for e in seen.installed if e.visible}
    for each in seen.installed:
        one = each.distribution
        by = visible.get(one.name)
        if each.visible or by is None or not one.state.present:
            continue
        if by.distribution.version != one.version:
            yield each, by


def harm_of_other_version(
    seen: Examination, hidden: Distribution, version: str, depth: int
) -> tuple[Harm | None, str]:
    """What another version in front of a distribution does, and to which others.

    Args:
        seen: everything that was seen.
        hidden: the distribution that is no longer imported.
        version: the one that is imported instead.
        depth: which entry of the path the hidden one lies in; what lies there or behind was
            installed beside it.

    Returns:
        The harm, or None where nobody minds; and a clause that names who does.
    """
    refusing: list[str] = []
    built: list[str] = []
    for each in seen.installed:
        if not each.visible or not each.distribution.state.present:
            continue
        for bound in bounds(seen, each.distribution, hidden.name):
            if not accepts(bound, version) and accepts(bound, hidden.version):
                refusing.append(each.distribution.name)
            elif each.compiled and each.depth >= depth:
                built.append(each.distribution.name)
    if refusing:
        return Harm.USE, f"{listed(sorted(set(refusing)))} can do only"
    if not built:
        return None, ""
    hurt = f"{listed(sorted(set(built)))} {were(built)} compiled against it, and met"
    foreign = major(version) != major(hidden.version)
    return (Harm.USE if foreign else Harm.NOTE), hurt


def useless_copies(seen: Examination) -> Iterator[Finding]:
    """Whole copies that no import sees and that nothing needs: they only take space."""
    useless = [each for each in seen.installed if not each.visible and _is_useless(seen, each)]
    size = sum(each.size for each in useless)
    if size < LEAST_WASTE_BYTES:
        return
    largest = sorted(useless, key=lambda e: (-e.size, e.distribution.name))
    names = [label(each.distribution) for each in largest]
    yield Finding(
        code=FindingCode.HIDDEN_COPIES,
        harm=Harm.COST,
        what=f"{listed(names)} {are(names)} on the path twice, and no import sees the second "
        f"copy{size_in_brackets(size)}",
        why="it only takes space; uninstalling takes the copy in front away",
        mend=_clear(seen, useless),
    )


def _is_useless(seen: Examination, hidden: Installed) -> bool:
    one = hidden.distribution
    if not one.state.present:
        return False
    harm, _ = harm_of_other_version(seen, one, _shown_version(seen, hidden), hidden.depth)
    return harm is None


def _clear(seen: Examination, useless: list[Installed]) -> str:
    """The command that removes the copies in front, directory by directory."""
    names = {each.distribution.name for each in useless}
    front: dict[str, list[str]] = {}
    for each in seen.installed:
        if each.visible and each.distribution.name in names:
            front.setdefault(each.distribution.location, []).append(each.distribution.name)
    return remedies.then(
        *(remedies.uninstall(seen.tools, sorted(found), place) for place, found in front.items())
    )


def _shown_version(seen: Examination, hidden: Installed) -> str:
    for each in seen.installed:
        if each.visible and each.distribution.name == hidden.distribution.name:
            return each.distribution.version or ""
    return hidden.distribution.version or ""


def hidden_by_layers(seen: Examination) -> Iterator[Finding]:
    """Platform distributions that a layer of the last startup hides from what needs them."""
    visible = {e.distribution.name: e for e in seen.installed if e.visible}
    for layer in seen.store.layers if seen.store else ():
        for name, version in layer.distributions if layer.in_use else ():
            beneath = visible.get(name)
            one = beneath.distribution if beneath else None
            if beneath is None or one is None or not one.state.present or one.version == version:
                continue
            harm, hurt = harm_of_other_version(seen, one, version, 0)
            if harm is not None:
                yield Finding(
                    code=FindingCode.LAYER_SHADOWS,
                    harm=harm,
                    what=f"the layer of {layer.package} hides the platform's {label(one)} by "
                    f"{version}",
                    why=f"{hurt} the platform's; what the manifest promises was proved so, what it "
                    "does not name was not",
                    mend=remedies.by_hand(
                        f"add {name}=={one.version} to `requires` of {layer.package} in the "
                        "manifest",
                        remedies.preheat(seen.tools, "warm", "--retry"),
                    ),
                )
