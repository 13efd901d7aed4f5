"""What holds for every test of this checkout, the library's and the worker's."""

from __future__ import annotations

import pytest

from tests.support.own_ground import refuse_to_clean_the_machine


@pytest.fixture(autouse=True, scope="session")
def own_ground() -> None:
    """A test that would have preheat clean this machine's caches fails where it starts it."""
    refuse_to_clean_the_machine()
