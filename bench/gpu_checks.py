"""On a GPU: checks that call what they check, beside what the import alone would have said.

`PREHEAT_BENCH_PYTHON` names the platform's interpreter, with CUDA torch and torchaudio; the running
one is taken otherwise. `PREHEAT_BENCH_WHEELS` names a directory with ctranslate2, what it requires,
and einops: no index is asked.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import ground

RESAMPLE = """
import torch, torchaudio

if torch.cuda.is_available():
    wave = torch.randn(1, 48_000)
    resample = torchaudio.transforms.Resample(48_000, 16_000)
    there = resample.to("cuda")(wave.to("cuda")).cpu()
    torch.testing.assert_close(there, resample.to("cpu")(wave), rtol=1e-4, atol=1e-4)
"""
# A decoder of one layer with random weights: its products of matrices are cuBLAS's on a GPU.
MATMUL = """
import tempfile
import ctranslate2, numpy
from ctranslate2.specs import common_spec, transformer_spec

WIDTH, WORDS = 16, 32
random = numpy.random.default_rng(0)


def fill(layer, into, out):
    layer.weight = random.standard_normal((out, into)).astype("float32")
    layer.bias = numpy.zeros(out, "float32")


def norm(layer):
    layer.gamma, layer.beta = numpy.ones(WIDTH, "float32"), numpy.zeros(WIDTH, "float32")


spec = transformer_spec.TransformerDecoderModelSpec.from_config(
    1, 2, pre_norm=True, activation=common_spec.Activation.GELU
)
decoder = spec.decoder
decoder.scale_embeddings = False
decoder.embeddings.weight = random.standard_normal((WORDS, WIDTH)).astype("float32")
decoder.position_encodings.encodings = random.standard_normal((64, WIDTH)).astype("float32")
norm(decoder.layer_norm)
fill(decoder.projection, WIDTH, WORDS)
layer, = decoder.layer
norm(layer.self_attention.layer_norm)
fill(layer.self_attention.linear[0], WIDTH, 3 * WIDTH)
fill(layer.self_attention.linear[1], WIDTH, WIDTH)
norm(layer.ffn.layer_norm)
fill(layer.ffn.linear_0, WIDTH, 4 * WIDTH)
fill(layer.ffn.linear_1, 4 * WIDTH, WIDTH)
spec.register_vocabulary([str(n) for n in range(WORDS - 3)] + ["<unk>", "<s>", "</s>"])
spec.validate()


def scores(place, device):
    found = ctranslate2.Generator(place, device=device).forward_batch([["<s>", "1", "2", "3"]])
    return numpy.array(found.to_device(ctranslate2.Device.cpu))


if ctranslate2.get_cuda_device_count():
    with tempfile.TemporaryDirectory() as place:
        spec.save(place)
        here, there = scores(place, "cpu"), scores(place, "cuda")
        numpy.testing.assert_allclose(there, here, rtol=1e-2, atol=1e-2)
"""
DIES = """
import os, signal, torch

if torch.cuda.is_available():
    torch.ones(8, device="cuda").sum().item()
    os.kill(os.getpid(), signal.SIGSEGV)
"""
PACKAGES: Mapping[str, tuple[str, str]] = {
    "torchaudio": ("torchaudio", RESAMPLE),
    "ctranslate2": ("ctranslate2", MATMUL),
    "einops": ("einops", DIES),
}


def measure() -> None:
    """Warm without GPU checks, then with them; print both and keep what was said."""
    with TemporaryDirectory(prefix="preheat-gpu-checks-") as place:
        found = {
            name: _warm(Path(place), checked=checked)
            for name, checked in (("imports alone", False), ("checked on the GPU", True))
        }
    rows = [
        [row["name"], name, row["version"] or "-", row["status"], row["reason"]]
        for name, document in found.items()
        for row in document["packages"]
    ]
    ground.show("what a start says", ("package", "proof", "version", "status", "reason"), rows)
    capability = {name: document["capabilities"] for name, document in found.items()}
    print(json.dumps(capability, indent=1))
    ground.keep("gpu-checks", {"rows": rows, "capabilities": capability})


def _warm(place: Path, *, checked: bool) -> dict[str, Any]:
    python = os.environ.get("PREHEAT_BENCH_PYTHON", sys.executable)
    wheels = os.environ.get("PREHEAT_BENCH_WHEELS")
    packages = [
        {
            "name": name,
            "requires": [name],
            "imports": [module],
            **({"check": check, "check-gpu": True} if checked else {}),
        }
        for name, (module, check) in PACKAGES.items()
    ]
    manifest = ground.write_manifest(
        place / f"{checked}.toml",
        packages,
        index={"find-links": [wheels] if wheels else []},
        capabilities={"recognition": ["ctranslate2", "torch"]},
    )
    named = ("--manifest", str(manifest), "--store", str(place / f"store-{checked}"))
    offline = ("--offline",) if wheels else ()
    said = ground.platform_preheat("warm", "--json", *named, "--python", python, *offline)
    document: dict[str, Any] = json.loads(said)
    return document
