"""What a test may need of the machine is skipped as the library's own tests skip it."""

from __future__ import annotations

from tests.conftest import (
    children_can_be_interrupted,
    nothing_of_the_machine,
    pytest_runtest_setup,
)

__all__ = ["children_can_be_interrupted", "nothing_of_the_machine", "pytest_runtest_setup"]
