"""The same in two minutes: small packages on disks of 10 to 140 MB, tmpfs only (root only)."""

from __future__ import annotations

from bench import survival


def measure() -> None:
    """Sweep the small course."""
    survival.measure(survival.SMALL)
