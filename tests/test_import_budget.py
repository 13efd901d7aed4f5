"""What `import preheat` costs, counted in modules: a warm start can afford none of the heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_floors import WARM_STANDARD_LIBRARY, is_warm, is_within

# Named, so that a set that grows by accident does not let them in.
HEAVY = {
    "click",
    "dataclasses",
    "httpx",
    "importlib.metadata",
    "json",
    "packaging",
    "pathlib",
    "pydantic",
    "re",
    "rich",
    "subprocess",
    "typing",
}


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter imports, as its own import timer lists them."""
    timed = [sys.executable, "-X", "importtime", "-c", statement]
    log = subprocess.run(timed, capture_output=True, text=True, check=True).stderr
    rows = (line.split("|") for line in log.splitlines() if line.startswith("import time:"))
    return {row[2].strip() for row in rows}


@pytest.fixture(scope="module")
def added() -> set[str]:
    """What importing preheat adds to an interpreter that does nothing."""
    return loaded_by("import preheat") - loaded_by("pass")


def test_importing_preheat_is_seen_by_the_timer(added: set[str]) -> None:
    assert "preheat" in added


def test_importing_preheat_loads_only_what_a_warm_start_needs(added: set[str]) -> None:
    ours = {name for name in added if is_within(name, "preheat")}
    assert added <= WARM_STANDARD_LIBRARY | ours
    assert all(name == "preheat" or is_warm(name) for name in ours)


def test_importing_preheat_loads_nothing_heavy(added: set[str]) -> None:
    assert not added & HEAVY
