"""From what was seen to what is wrong, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from preheat.decisions.health import cuda, hidden, installed, remedies, store
from preheat.words.diagnosis import Finding, FindingCode, Harm
from preheat.words.examination import Examination

_ORDER = {code: place for place, code in enumerate(FindingCode)}


def diagnose(seen: Examination) -> tuple[Finding, ...]:
    """Everything that is wrong, in order of harm; empty where nothing was found."""
    return in_order((*_basics(seen), *_platform(seen), *_store(seen), *_unexamined(seen)))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst harm first; within one harm what others depend on; then by name."""
    return tuple(sorted(findings, key=lambda f: (f.harm.rank, _ORDER[f.code], f.what, f.mend)))


def breaks_a_start(findings: Iterable[Finding]) -> bool:
    """Whether one of these will break a start."""
    return any(finding.harm is Harm.START for finding in findings)


def _basics(seen: Examination) -> Iterator[Finding]:
    if seen.manifest_error:
        yield Finding(
            code=FindingCode.MANIFEST,
            harm=Harm.START,
            what=seen.manifest_error,
            why="every start ends with exit status 2; what follows was found with the defaults",
            mend=remedies.by_hand("correct it", remedies.preheat(seen.tools, "plan")),
        )
    if seen.interpreter_error:
        yield Finding(
            code=FindingCode.INTERPRETER,
            harm=Harm.START,
            what=seen.interpreter_error,
            why="every start ends with exit status 5; the platform could not be looked at",
            mend=remedies.by_hand(
                "find one that runs", remedies.export("PREHEAT_PYTHON", "/usr/bin/python3")
            ),
        )
    if seen.temp_error:
        yield Finding(
            code=FindingCode.TEMP_UNUSABLE,
            harm=Harm.START,
            what=f"there is no usable temporary directory: {seen.temp_error}",
            why="nothing can be proved or built without one",
            mend="mkdir -p /tmp && chmod 1777 /tmp && export TMPDIR=/tmp",
        )


def _platform(seen: Examination) -> Iterator[Finding]:
    if seen.platform is None:
        return
    for look in (
        cuda.torch_mixed,
        cuda.companions,
        cuda.driver,
        cuda.cuda_twice,
        cuda.system_cuda,
        installed.two_metadata,
        installed.half_installed,
        installed.leftovers,
        installed.overwritten,
        hidden.other_versions,
        hidden.useless_copies,
        hidden.hidden_by_layers,
    ):
        yield from look(seen)


def _store(seen: Examination) -> Iterator[Finding]:
    state, tools = seen.store, seen.tools
    if state is None:
        return
    yield from store.not_writable(state, tools)
    yield from store.locks(state, tools)
    yield from store.space(state, tools)
    yield from store.temp(state, tools)
    yield from store.split(state)
    yield from store.hardlinks(state)
    yield from store.damaged_layers(state, tools)
    yield from store.duplicates(state)


def _unexamined(seen: Examination) -> Iterator[Finding]:
    for each in seen.unexamined:
        yield Finding(
            code=FindingCode.UNEXAMINED,
            harm=Harm.NOTE,
            what=f"{each.part} could not be looked at: {each.reason}",
            why="something may be wrong there that is not told here",
            mend=remedies.by_hand("repair that", remedies.preheat(seen.tools, "doctor")),
        )
