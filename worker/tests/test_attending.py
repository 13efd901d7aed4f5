"""flash-attn, where a GPU has it.

Needs torch, f5-tts and flash-attn in the interpreter that runs it:
`preheat run --manifest worker/preheat.toml -- python -m pytest worker/tests/test_attending.py`
"""

from __future__ import annotations

from typing import Any

import pytest

from f5_tts_worker.attention_backend import Attention, choose_attention


def network(dtype: str) -> Any:
    """Two of F5-TTS's own attentions, as its models make them, on the GPU."""
    torch = pytest.importorskip("torch")
    modules = pytest.importorskip("f5_tts.model.modules")
    torch.manual_seed(0)
    layers = [
        modules.Attention(
            processor=modules.AttnProcessor(attn_backend="torch", attn_mask_enabled=False),
            dim=256,
            heads=4,
        )
        for _ in range(2)
    ]
    return torch.nn.Sequential(*layers).to("cuda", getattr(torch, dtype)).eval()


@pytest.mark.gpu
def test_f5_tts_attends_by_flash_attn_on_a_gpu_and_says_the_same() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("flash_attn")
    made = network("float16")
    heard = torch.randn(2, 500, 256, device="cuda", dtype=torch.float16)
    with torch.inference_mode():
        before = made(heard)
        assert choose_attention(made, "flash-attn") == Attention(by="flash-attn")
        after = made(heard)
    assert [layer.processor.attn_backend for layer in made] == ["flash_attn", "flash_attn"]
    assert float((before - after).abs().max()) < 1e-2


@pytest.mark.gpu
def test_in_full_precision_torch_attends_and_it_is_said_why() -> None:
    chosen = choose_attention(network("float32"), "flash-attn")
    assert chosen.by == "torch"
    assert chosen.why_not == "flash-attn needs half precision, and the model is in torch.float32"


@pytest.mark.gpu
def test_where_the_manifest_prefers_torch_it_stays_with_torch() -> None:
    assert choose_attention(network("float16"), "torch") == Attention(by="torch")
