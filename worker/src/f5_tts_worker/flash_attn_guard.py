"""Hides a flash_attn that cannot be used; imported before F5-TTS is.

F5-TTS asks whether there is anything of that name, and imports from it if so: a directory that a
killed installation left behind is enough to make ``import f5_tts.api`` fail. preheat keeps what
failed its proof off the path, but what lies in the platform's own site-packages stays there.
"""

from __future__ import annotations

import sys

try:
    import flash_attn.bert_padding

    # What f5_tts.model.modules takes from it (f5-tts 1.1.22).
    _USED = (
        flash_attn.flash_attn_func,
        flash_attn.flash_attn_varlen_func,
        flash_attn.bert_padding.pad_input,
        flash_attn.bert_padding.unpad_input,
    )
except Exception:  # noqa: BLE001  # whatever it is, torch's own attention serves
    for name in [name for name in sys.modules if name.partition(".")[0] == "flash_attn"]:
        del sys.modules[name]
    # Python's own mark for a module that is not to be found (the import system's reference).
    sys.modules["flash_attn"] = None  # type: ignore[assignment]
