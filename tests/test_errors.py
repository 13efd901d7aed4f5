"""Errors are told apart by their class, and keep the code and the exit status that scripts know."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from preheat.edges.engine import failures
from preheat.edges.process import child
from preheat.words import errors
from preheat.words.errors import (
    ArchiveChanged,
    DiskFull,
    InstallError,
    PackDamaged,
    PackError,
    PreheatError,
    StoreError,
    Transient,
)
from preheat.words.manifest import Package
from preheat.words.outcome import Cause, Outcome
from preheat.words.plan import Step

FULL = "error: Failed to install: a.whl\n  cause: No space left on device (os error 28)\n"
SILENT = "error: Failed to fetch: `http://user:word@index/a.whl`\n  cause: operation timed out\n"
OTHER = "error: Failed to download `a==1`\n  cause: Hash mismatch for `a==1`\n"
BROKEN = "error: Failed to build `a==1`\n  cause: The build backend returned an error\n"


def below(kind: type[PreheatError], depth: int = 0) -> Iterator[tuple[int, type[PreheatError]]]:
    yield depth, kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from below(each, depth + 1)


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: +([a-z-]+))?(?: +(?:exit )?(\d))?", line)
        if found:
            drawn.append((len(found[1]) // 4, found[2], found[3], found[4]))
    assert drawn == [
        (
            depth,
            kind.__name__,
            kind.code if "code" in vars(kind) else None,
            str(kind.exit_status) if "exit_status" in vars(kind) else None,
        )
        for depth, kind in below(PreheatError)
    ]


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        (FULL, DiskFull),
        (FULL + SILENT, DiskFull),
        (SILENT, Transient),
        (SILENT + OTHER, Transient),
        ("error: Input/output error\n", Transient),
        (OTHER, ArchiveChanged),
        (BROKEN, InstallError),
    ],
)
def test_what_the_engine_says_of_a_failure_is_told_by_its_class(
    report: str, kind: type[InstallError]
) -> None:
    error = failures.error(report, 2)
    assert type(error) is kind
    assert (error.code, error.exit_status) == ("install", 8)
    assert "word" not in error.output


@pytest.mark.parametrize("kind", [kind for _, kind in below(PreheatError)])
def test_an_error_of_a_child_is_raised_as_the_class_that_has_its_code(
    kind: type[PreheatError],
) -> None:
    document = {"code": kind.code, "message": "it did not go", "hint": "try this"}
    error = child._as_raised(document)
    assert (error.code, error.message, error.hint) == (kind.code, "it did not go", "try this")
    assert isinstance(error, PreheatError)
    assert issubclass(kind, type(error))


def test_a_pack_that_cannot_be_read_now_is_not_one_that_is_damaged() -> None:
    assert issubclass(PackDamaged, PackError)
    assert PackDamaged("it is torn").exit_status == StoreError.exit_status


PACKAGE = Package(name="tone", requires=("tone",), imports=("tone",), required=True)


@pytest.mark.parametrize("cause", Cause)
def test_only_what_may_go_otherwise_at_once_is_not_remembered(cause: Cause) -> None:
    outcome = Outcome.planned(Step.provided(PACKAGE, "it is there", "1.0"))
    assert (outcome.good, outcome.cause, outcome.remembered) == (True, None, True)
    outcome.skip("it does not go", cause)
    assert not outcome.good
    assert outcome.remembered == (
        cause in {Cause.UNMET, Cause.REFUSED, Cause.FAILED, Cause.NO_ROOM}
    )


def test_a_package_that_is_not_wanted_here_is_not_missed() -> None:
    unwanted = Outcome.planned(Step.skip(PACKAGE, "there is no GPU", wanted=False))
    refused = Outcome.planned(Step.skip(PACKAGE, "no release fits"))
    assert (unwanted.cause, unwanted.required) == (Cause.UNMET, False)
    assert (refused.cause, refused.required) == (Cause.REFUSED, True)
