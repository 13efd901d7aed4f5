"""Sizes in bytes and durations in seconds: read from what a person wrote, and written for one."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

SIZE_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kKmMgGtTpP][iI]?)?[bB])?"
DURATION_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)"
_LARGEST_SIZE = 2**63 - 1
_SIZE_UNITS = {
    prefix + suffix: base**power
    for suffix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate(("k", "M", "G", "T", "P"), start=1)
}
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> int:
    """Return the bytes that `value` stands for, fractions of a byte cut off.

    An integer is a number of bytes. Text is a number with a unit: B, the decimal kB, MB, GB, TB,
    PB (powers of 1000), or the binary KiB to PiB (powers of 1024; IEC 80000-13). Upper and lower
    case are the same.

    Raises:
        ValueError: it is anything else, negative, or more than 2**63 - 1 bytes.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    if isinstance(value, str):
        written = re.fullmatch(SIZE_PATTERN, value.strip())
        if written is None:
            raise ValueError
        units = {unit.lower(): factor for unit, factor in _SIZE_UNITS.items()}
        value = int(Fraction(written[1]) * units.get((written[2] or "").lower(), 1))
    if not 0 <= value <= _LARGEST_SIZE:
        raise ValueError("negative" if value < 0 else "too large")
    return value


def format_size(size: int) -> str:
    """Return `size` bytes in the largest unit that is exact; `parse_size` reads it back."""
    for unit, factor in sorted(_SIZE_UNITS.items(), key=lambda item: -item[1]):
        if size and size % factor == 0:
            return f"{size // factor}{unit.replace('ki', 'Ki')}B"
    return f"{size}B"


def parse_duration(value: object) -> float:
    """Return the seconds that `value` stands for.

    A number is a number of seconds. Text is a number with one of the units s, m (minutes), h, d,
    or with none, for seconds.

    Raises:
        ValueError: it is anything else, negative, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    if isinstance(value, str):
        written = re.fullmatch(DURATION_PATTERN, value.strip())
        if written is None:
            raise ValueError
        value = float(written[1]) * _DURATION_UNITS.get(written[2], 1)
    try:
        seconds = float(value)
    except OverflowError:
        raise ValueError("too long") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError
    return seconds


def format_duration(seconds: float) -> str:
    """Return `seconds` in the largest unit that is exact; `parse_duration` reads it back."""
    for unit in ("d", "h", "m"):
        factor = _DURATION_UNITS[unit]
        if seconds and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    exact = int(seconds) if seconds.is_integer() else seconds
    return f"{Decimal(repr(exact)):f}s"


def in_mb(size: float) -> str:
    """Return `size` bytes for a sentence, rounded: `1,234 MB`."""
    return f"{size / 1e6:,.0f} MB"


def in_gb(size: float) -> str:
    """Return `size` bytes for a sentence, rounded: `1.2 GB`."""
    return f"{size / 1e9:,.1f} GB"
