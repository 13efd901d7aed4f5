"""What is wrong with the distributions of a platform, each by itself."""

from __future__ import annotations

from collections.abc import Iterator

from preheat.decisions.health import remedies
from preheat.decisions.health.bounds import as_version
from preheat.decisions.health.cuda import cuda_twins
from preheat.decisions.health.phrases import are, base_name, label, listed, size_in_brackets, were
from preheat.words.diagnosis import Finding, FindingCode, Harm
from preheat.words.examination import Examination, Installed, Twins
from preheat.words.platform import RecordState

_DPKG_SITE = "/usr/lib/python3/dist-packages"


def half_installed(seen: Examination) -> Iterator[Finding]:
    """Distributions that an installer did not finish."""
    twins = {(each.name, each.location) for each in seen.twins}
    for each in seen.installed:
        one = each.distribution
        if one.state is RecordState.TILDE or (one.name, one.location) in twins:
            continue
        fault, harm = _fault(each)
        if fault:
            yield Finding(
                code=FindingCode.HALF_INSTALLED,
                harm=harm,
                what=f"{label(one)} in {one.location} is half-installed: {fault}",
                why="an installer was stopped there, or files were removed; an import of it fails, "
                "or mixes two versions",
                mend=remedies.restore(seen.tools, each),
            )


def _fault(each: Installed) -> tuple[str, Harm]:
    """What is missing of a copy, and the harm; empty where nothing is."""
    one = each.distribution
    # A copy that no import sees is nobody's import error.
    harm = Harm.START if each.visible else Harm.COST
    if one.state is RecordState.INCOMPLETE:
        return f"{listed(one.missing)} of its RECORD {are(one.missing)} missing", harm
    if one.state is RecordState.NAMELESS:
        return "its metadata is lost", harm
    if each.truncated and not each.shared and each.installer != "conda":
        files = each.truncated
        return f"{listed(files)} {are(files)} not of the size that its RECORD says", harm
    unfinished = one.state is RecordState.UNVERIFIABLE and one.metadata.endswith(".dist-info")
    if unfinished and not each.installer and not one.location.endswith(_DPKG_SITE):
        return "it has neither RECORD nor INSTALLER, which are written last", _at_most_use(harm)
    return "", harm


def _at_most_use(harm: Harm) -> Harm:
    return Harm.USE if harm is Harm.START else harm


def two_metadata(seen: Examination) -> Iterator[Finding]:
    """Two versions of one distribution in one directory: their files are mixed."""
    for each in seen.twins:
        newest = _newest(each)
        versions = ", ".join(sorted(remedies.version_in(path) or "?" for path in each.metadata))
        yield Finding(
            code=FindingCode.TWO_METADATA,
            harm=Harm.USE,
            what=f"{each.name} is installed in several versions at one place: {versions} in "
            f"{each.location}",
            why="an upgrade was stopped between the new files and the removal of the old ones; "
            "nobody can tell which files are there",
            mend=remedies.then(
                remedies.remove(each.metadata),
                remedies.reinstall(seen.tools, each.name, newest, each.location),
            ),
        )


def _newest(twins: Twins) -> str:
    return max(map(remedies.version_in, twins.metadata), key=as_version, default="")


def leftovers(seen: Examination) -> Iterator[Finding]:
    """What an interrupted uninstall renamed to ``~name``: bytes, or all that is left of it."""
    left: dict[str, list[Installed]] = {}
    for each in seen.installed:
        if each.distribution.state is RecordState.TILDE:
            left.setdefault(each.distribution.location, []).append(each)
    present = {e.distribution.name for e in seen.installed if e.distribution.state.present}
    for location, entries in left.items():
        paths = [each.distribution.metadata for each in entries]
        lost = {e.was[0]: e.was[1] for e in entries if e.was and e.was[0] not in present}
        if not lost:
            yield Finding(
                code=FindingCode.LEFTOVERS,
                harm=Harm.COST,
                what=f"{listed([base_name(path) for path in paths])} in {location} "
                f"{were(paths)} left behind by an interrupted uninstall"
                f"{size_in_brackets(sum(each.size for each in entries))}",
                why="nothing uses it, and pip warns of it at every call",
                mend=remedies.remove(paths),
            )
        for name, version in sorted(lost.items()):
            yield Finding(
                code=FindingCode.LOST,
                harm=Harm.START,
                what=f"{name} {version} in {location} was uninstalled by half, and nothing came in "
                "its place",
                why="an upgrade was stopped between removing the old version and installing the "
                "new one; an import of it fails",
                mend=remedies.then(
                    remedies.remove(paths), remedies.reinstall(seen.tools, name, version, location)
                ),
            )


def _runs(file: str) -> bool:
    """Whether a program takes that file: many wheels write a LICENSE or ``tests`` beside theirs."""
    aside = file.partition("/")[0] in ("benchmarks", "docs", "examples", "test", "tests")
    return not aside and (file.endswith((".py", ".so")) or ".so." in file)


def overwritten(seen: Examination) -> Iterator[Finding]:
    """Files that a second distribution wrote over."""
    pairs = cuda_twins(seen)
    beside = {twin.distribution.name for pair in pairs for twin in pair}
    by_name = {(e.distribution.name, e.distribution.location): e for e in seen.installed}
    for each in seen.installed:
        one = each.distribution
        files = [file for file in each.truncated if _runs(file)]
        if not files or not each.shared or one.name in beside:
            continue
        winner = by_name.get((each.shared[0], one.location))
        version = (winner.distribution.version if winner else "") or ""
        yield Finding(
            code=FindingCode.OVERWRITTEN,
            harm=Harm.USE,
            what=f"{listed(files)} of {label(one)} {were(files)} overwritten "
            f"by {each.shared[0]} {version}".rstrip(),
            why="both hold the same files, so that one of them runs on the other's code; "
            "uninstalling either breaks both",
            mend=remedies.then(
                remedies.uninstall(seen.tools, [one.name], one.location),
                remedies.reinstall(seen.tools, each.shared[0], version, one.location),
            ),
        )
