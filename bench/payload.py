"""Bytes: what unconstrained uv, and what preheat would put around a platform with CUDA torch.

Everything is read from the wheels' directories on the index; only the platform is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench import ground
from bench.scales import Payload, Scales, pins_of

PLATFORM = ("torch==2.13.0", "numpy==2.4.6; python_version >= '3.11'")
REQUIREMENTS: Mapping[str, str] = {
    "transformers": "transformers",
    "google-cloud-speech": "google.cloud.speech",
    "whisperx": "whisperx.alignment",
    "f5-tts": "f5_tts.api",
}
EXCLUDES: Mapping[str, list[str]] = {
    "whisperx": ["pyannote-audio", "ctranslate2", "faster-whisper"],
    "f5-tts": ["gradio", "bitsandbytes", "torchcodec", "transformers-stream-generator"],
}


def measure() -> None:
    """Weigh the three installations, print the table and keep the figures."""
    home = ground.BUILD / "payload"
    python = ground.make_venv(home / "platform", *PLATFORM)
    scales = Scales(python, home / "scales")
    payloads = {
        "uv, unconstrained": scales.unconstrained(REQUIREMENTS),
        "preheat": scales.weigh(planned(python, home / "whole", {})),
        "preheat, with excludes": scales.weigh(planned(python, home / "lean", EXCLUDES)),
    }
    every = next(iter(payloads.values()))
    columns = ("", "MB", "of uv's", "archives MB", "distributions", "torch, triton, nvidia")
    ground.show(
        "around torch 2.13.0 (CUDA) and numpy: transformers, google-cloud-speech, whisperx, f5-tts",
        columns,
        ([name, *_cells(payload, every)] for name, payload in payloads.items()),
    )
    print("bytes without .pyc, by the wheels' directories")
    ground.keep("payload", {name: _figures(each, every) for name, each in payloads.items()})


def tables(excludes: Mapping[str, list[str]]) -> list[dict[str, object]]:
    """The manifest's packages."""
    return [
        {
            "name": name,
            "requires": [name],
            "imports": [module],
            "exclude": excludes.get(name, []),
        }
        for name, module in REQUIREMENTS.items()
    ]


def planned(python: Path, place: Path, excludes: Mapping[str, list[str]]) -> list[str]:
    """What preheat would install, as `name==version`."""
    manifest = ground.write_manifest(place / "preheat.toml", tables(excludes))
    options = ("--manifest", str(manifest), "--store", str(place / "store"))
    packages = ground.preheat("plan", *options, "--python", str(python))["packages"]
    if not isinstance(packages, list):
        raise SystemExit("the plan has no packages")
    refused = [f"{p['name']}: {p['reason']}" for p in packages if p["status"] != "installed"]
    if refused:
        print("not in it:", "; ".join(refused))
    return pins_of(packages)


def _cells(payload: Payload, every: Payload) -> list[str]:
    return [
        f"{payload.bytes / 1e6:,.0f}",
        f"{payload.bytes / every.bytes:.3f}",
        f"{payload.archives / 1e6:,.0f}",
        str(len(payload.distributions)),
        str(len(payload.again)),
    ]


def _figures(payload: Payload, every: Payload) -> dict[str, object]:
    return {
        "bytes": payload.bytes,
        "share": round(payload.bytes / every.bytes, 4),
        "archive_bytes": payload.archives,
        "distributions": len(payload.distributions),
        "torch_triton_nvidia": payload.again,
        "estimated": payload.estimated,
    }
