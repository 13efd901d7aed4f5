"""Chooses what computes F5-TTS's attention: flash-attn where it works, and torch elsewhere.

Read in f5-tts 1.1.22 (``model/modules.py``): a model's yaml states ``attn_backend``, "torch" or
"flash_attn", and each attention of its network keeps that word; the weights are the same for both.
All models that F5-TTS knows say torch. So it is chosen once the model is loaded, by what preheat
found, after one call that compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

FLASH_ATTN: Final = "flash-attn"
TORCH: Final = "torch"

_PACKAGES: Final = {"flash_attn": FLASH_ATTN, "torch": TORCH}
"""The package of each ``attn_backend``."""
_TOLERANCE: Final = 1e-2  # of values around 1, in half precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """The package that computes it, and why the one that was wanted does not, if so."""

    by: str
    why_not: str | None = None


def choose_attention(network: Any, wanted: str | None) -> Attention:
    """Have a loaded network compute its attention by flash-attn, where that is wanted and works.

    Args:
        network: F5-TTS's transformer.
        wanted: the package that preheat found to serve the capability.
    """
    attentions = list(_attentions(network))
    if not attentions:
        return Attention(by=TORCH)
    by = _PACKAGES[attentions[0].processor.attn_backend]
    if wanted != FLASH_ATTN or by == FLASH_ATTN:
        return Attention(by=by)
    why_not = _why_not(attentions[0])
    if why_not is None:
        for each in attentions:
            each.processor.attn_backend = "flash_attn"
        return Attention(by=FLASH_ATTN)
    return Attention(by=by, why_not=why_not)


def _attentions(network: Any) -> Iterator[Any]:
    """The attentions of the network, each with its backend."""
    for module in network.modules():
        if hasattr(getattr(module, "processor", None), "attn_backend"):
            yield module


def _why_not(attention: Any) -> str | None:
    """Why flash-attn cannot do this attention: None where it gives what torch gives."""
    import torch

    weight = attention.to_q.weight
    if weight.device.type != "cuda":
        return f"flash-attn needs a GPU, and the model is on {weight.device}"
    if weight.dtype not in (torch.float16, torch.bfloat16):
        return f"flash-attn needs half precision, and the model is in {weight.dtype}"
    shape = (1, 64, attention.heads, weight.shape[0] // attention.heads)
    try:
        import flash_attn

        query, key, value = (
            torch.randn(shape, device=weight.device, dtype=weight.dtype) for _ in range(3)
        )
        got = flash_attn.flash_attn_func(query, key, value, dropout_p=0.0, causal=False)
        heads_first = (each.transpose(1, 2) for each in (query, key, value))
        right = torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)
        off = float((got - right).abs().max())
    except Exception as error:  # noqa: BLE001  # whatever it is, torch's own attention serves
        return f"flash-attn was tried and failed: {type(error).__name__}: {error}"
    # Where the values are no numbers, neither is the difference: that is off, too.
    return None if off <= _TOLERANCE else f"flash-attn was tried and is off by {off:.3g}"
