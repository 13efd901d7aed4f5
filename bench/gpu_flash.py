"""On a GPU: flash-attn built once, proved against torch's attention, and its speed beside it.

`PREHEAT_BENCH_PYTHON` names the platform's interpreter, with CUDA torch; the running one is taken
otherwise. `PREHEAT_BENCH_WHEELS` names a directory with flash-attn's source, what its build
requires, and einops: no index is asked. The store stays in build/bench, so that a second run
measures without building.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from bench import ground
from bench.ground import platform_preheat as preheat

PLACE = ground.BUILD / "gpu-flash"
CHECK = """
import torch
from flash_attn import flash_attn_func
from torch.nn.functional import scaled_dot_product_attention as attend

if torch.cuda.is_available():
    torch.manual_seed(0)
    for dim in (64, 128):
        shape = (2, 512, 8, dim)
        qkv = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        for causal in (False, True):
            theirs = attend(*(each.transpose(1, 2) for each in qkv), is_causal=causal)
            ours = flash_attn_func(*qkv, causal=causal).transpose(1, 2)
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
"""
BATCH, HEADS, ROUNDS = 4, 16, 50
# torch's layout is batch, heads, sequence, dim: its tensors are views of the same memory.
# The GPU is kept busy while calls are queued, so that events have kernels between them alone.
SPEED = """
import json, statistics, sys
import torch
from flash_attn import flash_attn_func
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attend

batch, heads, rounds = map(int, sys.argv[1:])
busy = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)


def timed(call):
    for _ in range(10):
        call()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for _ in range(12):
        busy @ busy
    for begin, end in events:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def with_backend(backend, call):
    def called():
        with sdpa_kernel(backend):
            return call()
    return called


rows = []
torch.manual_seed(0)
for dim in (64, 128):
    for length in (1024, 4096):
        shape = (batch, length, heads, dim)
        qkv = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        turned = [each.transpose(1, 2) for each in qkv]
        for causal in (False, True):
            plain = lambda: attend(*turned, is_causal=causal)
            calls = {
                "flash-attn": lambda: flash_attn_func(*qkv, causal=causal).transpose(1, 2),
                "torch flash": with_backend(SDPBackend.FLASH_ATTENTION, plain),
                "torch cudnn": with_backend(SDPBackend.CUDNN_ATTENTION, plain),
                "torch default": plain,
            }
            row = {"dim": dim, "length": length, "causal": causal, "ms": {}, "difference": {}}
            with sdpa_kernel(SDPBackend.MATH):
                # One of the batch: in float32 the scores of all would take gigabytes.
                exact = attend(*(each[:1].float() for each in turned), is_causal=causal)
            ours = calls["flash-attn"]()
            for name, call in calls.items():
                try:
                    result = call()
                except RuntimeError as error:
                    print(name, dim, length, causal, error, file=sys.stderr)
                    continue
                row["ms"][name] = timed(call)
                row["difference"][f"{name} from float32"] = (result[:1] - exact).abs().max().item()
                row["difference"][f"flash-attn from {name}"] = (ours - result).abs().max().item()
            rows.append(row)
about = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__}
print(json.dumps({**about, "rows": rows}))
"""


def measure() -> None:
    """Build, warm, and measure; print tables and keep the figures."""
    python = os.environ.get("PREHEAT_BENCH_PYTHON", sys.executable)
    common = _options(python)
    found: dict[str, Any] = {"build": json.loads(preheat("build", "--json", *common))}
    ground.keep("gpu-flash", found)
    (made,) = found["build"]["wheels"]
    print(json.dumps(made, indent=1), flush=True)
    if not made["ready"]:
        return
    found["warm"] = json.loads(preheat("warm", "--json", *common))
    (row,) = found["warm"]["packages"]
    print(f"attention is served by {found['warm']['capabilities']['attention']}")
    print(f"warm: {row['status']} in {found['warm']['seconds']:.1f} s {row['reason']}", flush=True)
    ground.keep("gpu-flash", found)
    if row["status"] not in ("installed", "reused"):
        return
    sizes = map(str, (BATCH, HEADS, ROUNDS))
    speed = json.loads(preheat("run", *common, "--", python, "-c", SPEED, *sizes))
    found["speed"] = speed
    _show(speed)
    ground.keep("gpu-flash", found)


def _options(python: str) -> tuple[str, ...]:
    wheels = os.environ.get("PREHEAT_BENCH_WHEELS")
    package = {
        "name": "flash-attn",
        "requires": ["flash-attn"],
        "imports": ["flash_attn"],
        "check": CHECK,
        "check-gpu": True,
        "build": True,
        "build-isolation": False,
        "build-requires": ["setuptools", "wheel", "packaging", "psutil", "ninja"],
        "build-limits": {"time": "25m", "memory": "6GB", "disk": "4GB"},
    }
    manifest = ground.write_manifest(
        PLACE / "preheat.toml",
        [package],
        index={"find-links": [wheels] if wheels else []},
        capabilities={"attention": ["flash-attn", "torch"]},
    )
    offline = ("--offline",) if wheels else ()
    store = PLACE / "store"
    return ("--manifest", str(manifest), "--store", str(store), "--python", python, *offline)


def _show(speed: Mapping[str, Any]) -> None:
    names = list(dict.fromkeys(name for row in speed["rows"] for name in row["ms"]))
    table = []
    for row in speed["rows"]:
        work = 4 * BATCH * HEADS * row["length"] ** 2 * row["dim"] / (2 if row["causal"] else 1)
        shape = f"dim {row['dim']}, {row['length']}{', causal' if row['causal'] else ''}"
        cells = [f"{row['ms'][name]:.3f}" if name in row["ms"] else "" for name in names]
        rate = f"{work / row['ms']['flash-attn'] / 1e9:.0f}"
        apart = row["difference"]
        differences = ("flash-attn from torch flash", "flash-attn from float32")
        cells += [rate, *(f"{apart[name]:.2e}" if name in apart else "" for name in differences)]
        table.append([shape, *cells])
    ground.show(
        f"{speed['device']}, torch {speed['torch']}; batch {BATCH}, {HEADS} heads, bf16, forward; "
        f"median of {ROUNDS}, milliseconds",
        ("shape", *names, "flash-attn, TFLOP/s", "off torch flash", "off float32"),
        table,
    )
