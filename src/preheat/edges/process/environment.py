"""The environments that children run in: made by us, never merely inherited."""

from __future__ import annotations

import os
from collections.abc import Mapping

from preheat.lease import SHARED

BOOTSTRAP = "PREHEAT_INTERNAL_BOOTSTRAP"
"""Where an activated process notes the bootstrap directory that it put on PYTHONPATH."""

PARENT = "PREHEAT_INTERNAL_PARENT"
"""The process that a cold startup works for; it ends with it."""

SYSTEM = "PREHEAT_INTERNAL_SYSTEM"
"""Stands for `/` in tests, so that they read and clean nothing of the machine they run on."""

GROUND = "PREHEAT_INTERNAL_GROUND"
"""The one directory in which benches and demos clean, which see the system as it is."""

_OFFLINE_HUBS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "disabled",
}
_SCRATCH = {
    "HOME": "home",
    "XDG_CACHE_HOME": "home/.cache",
    "XDG_CONFIG_HOME": "home/.config",
    "XDG_DATA_HOME": "home/.local/share",
    "HF_HOME": "home/.cache/huggingface",
    "TORCH_HOME": "home/.cache/torch",
    "TRITON_CACHE_DIR": "home/.cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "home/.cache/inductor",
    "NUMBA_CACHE_DIR": "home/.cache/numba",
    "MPLCONFIGDIR": "home/.config/matplotlib",
    "CUDA_CACHE_PATH": "home/.cache/cuda",
    "TMPDIR": "tmp",
}


def without_layers(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as it was before an activation: the platform's own path."""
    clean = dict(environment)
    bootstrap = clean.pop(BOOTSTRAP, None)
    clean.pop(SHARED, None)
    if bootstrap and "PYTHONPATH" in clean:
        rest = [p for p in clean["PYTHONPATH"].split(os.pathsep) if p != bootstrap]
        clean["PYTHONPATH"] = os.pathsep.join(rest)
        if not rest:
            del clean["PYTHONPATH"]
    clean["PYTHONDONTWRITEBYTECODE"] = "1"
    return clean


def for_proof(environment: Mapping[str, str], scratch: str, *, gpu: bool) -> dict[str, str]:
    """For real imports: hubs offline, everything that is written goes to a scratch directory.

    The platform is read-only to what we run there, so HOME, caches and temp are not the user's.
    """
    clean = without_layers(environment)
    clean.update(_OFFLINE_HUBS)
    for name, place in _SCRATCH.items():
        clean[name] = os.path.join(scratch, place)
        os.makedirs(clean[name], exist_ok=True)
    if not gpu:
        clean["CUDA_VISIBLE_DEVICES"] = ""
    return clean
