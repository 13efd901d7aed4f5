"""A flash_attn that cannot be used is none, for whoever asks after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WHOLE = "def flash_attn_func(): ...\ndef flash_attn_varlen_func(): ...\n"
PADDING = "def pad_input(): ...\ndef unpad_input(): ...\n"
ASK = (
    "import f5_tts_worker.flash_attn_guard, importlib.util;"
    "print(importlib.util.find_spec('flash_attn') is not None)"
)


def is_found(place: Path) -> bool:
    """Whether a program that looks for flash_attn finds it, as F5-TTS looks."""
    done = subprocess.run(
        (sys.executable, "-c", f"import sys; sys.path.insert(0, {str(place)!r}); {ASK}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, False),
        ({"left_over.txt": ""}, False),
        ({"__init__.py": "raise RuntimeError('another CUDA')\n"}, False),
        ({"__init__.py": WHOLE}, False),
        ({"__init__.py": "", "bert_padding.py": PADDING}, False),
        ({"__init__.py": WHOLE, "bert_padding.py": PADDING}, True),
    ],
)
def test_only_a_whole_flash_attn_is_found(
    tmp_path: Path, files: dict[str, str], found: bool
) -> None:
    (tmp_path / "flash_attn").mkdir()
    for name, content in files.items():
        (tmp_path / "flash_attn" / name).write_text(content)
    assert is_found(tmp_path) is found
