"""The F5-TTS worker, heard: started on this machine, one job sent, a wav and an ass file left.

With the real model where the model hub can be reached, else with a tiny one of random parameters,
which goes the same way and says nothing that can be understood. Everything is made below
build/demo/worker and kept for the next time.
"""

from __future__ import annotations

import argparse
import base64
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from uv import find_uv_bin

import stand_in

HOME = stand_in.PROJECT / "build" / "demo" / "worker"
WORKER = stand_in.PROJECT / "worker"
HUB = "https://huggingface.co/SWivid/F5-TTS/resolve/main/README.md"
TEXT = (
    "Warm hands make light work. This voice was cloned, every word was timed, and the subtitles "
    "beside it light up as it speaks."
)
PATIENCE = 1800.0  # seconds; the first start fetches packages, and models where it can


def main() -> int:
    """Show it; the first step that fails ends the demonstration."""
    parser = argparse.ArgumentParser(description="hear the F5-TTS worker")
    parser.add_argument("--tiny", action="store_true", help="do not ask the model hub")
    parser.add_argument("--text", default=TEXT)
    options = parser.parse_args()
    heading("A platform image that already has torch, numpy and the worker")
    python = make_platform()
    tiny = options.tiny or not hub_answers()
    if tiny:
        heading("No model hub here: a tiny model of random parameters speaks")
        prepare_tiny(python)
    else:
        heading("The real model speaks; it is fetched once, more than a gigabyte")
    heading("The worker's start: packages first, models second")
    with_worker(python, options.text, tiny=tiny)
    return 0


def make_platform() -> Path:
    """A virtual environment with torch, preheat and what the worker's image holds."""
    python = stand_in.make(HOME / "platform", small=False)
    command = [find_uv_bin(), "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*command, "--reinstall-package", "preheat-f5-tts-worker", WORKER], check=True)
    return python


def hub_answers() -> bool:
    """Whether models can be had."""
    try:
        return httpx.head(HUB, timeout=5, follow_redirects=True).is_success
    except httpx.HTTPError:
        return False


def prepare_tiny(python: Path) -> None:
    """Warm for the first time, and make the tiny models with what was warmed."""
    maker = stand_in.PROJECT / "demo" / "tiny_model.py"
    command = [str(python), str(maker), str(WORKER / "preheat.toml"), str(HOME / "models")]
    subprocess.run(command, env=environment(tiny=False), check=True)


def environment(*, tiny: bool) -> dict[str, str]:
    """What the worker is told; no bucket, so its answer holds the files."""
    told = {
        "PREHEAT_STORE": str(HOME / "store"),
        "WORKER_DATA": str(HOME / "data"),
        "WORKER_MANIFEST": str(WORKER / "preheat.toml"),
    }
    if tiny:
        models = HOME / "models"
        told |= {
            "F5_TTS_MODEL": str(models / "model.yaml"),
            "F5_TTS_CHECKPOINT": str(models / "model.safetensors"),
            "F5_TTS_VOCODER": str(models / "vocos"),
            "WHISPERX_MODELS": f"en={models / 'wav2vec2'}",
            "HF_HUB_OFFLINE": "1",
        }
    return {**os.environ, **told, **stand_in.own_ground(HOME)}


def with_worker(python: Path, text: str, *, tiny: bool) -> None:
    """Start it with the SDK's own local server, send it one job, and keep what comes back."""
    port = free_port()
    handler = [str(python), "-u", str(WORKER / "runpod-handler.py")]
    serve = ["--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)]
    process = subprocess.Popen([*handler, *serve], env=environment(tiny=tiny))
    try:
        wait_until_open(process, port)
        heading("One job")
        given = {"text": text, "timing_format": ["ass", "srt"], "nfe_step": 4 if tiny else 32}
        answer = post(f"http://127.0.0.1:{port}/runsync", {"input": given})
        keep(answer)
    finally:
        process.terminate()
        process.wait(30)


def post(address: str, job: dict[str, Any]) -> dict[str, Any]:
    """Send a job and wait for its output."""
    print(f"POST {address}\n{job}", flush=True)
    answer: dict[str, Any] = httpx.post(address, json=job, timeout=PATIENCE).json()
    if "output" not in answer:
        raise SystemExit(f"the job failed: {answer.get('error', answer)}")
    output: dict[str, Any] = answer["output"]
    return output


def keep(output: dict[str, Any]) -> None:
    """Write the wav and the subtitles, and say where."""
    files = {"wav": output["audio_base64"], **output.get("timing_base64", {})}
    for ending, content in files.items():
        file = HOME / f"speech.{ending}"
        file.write_bytes(base64.b64decode(content))
        print(f"{file.relative_to(stand_in.PROJECT)}: {file.stat().st_size:,} bytes")
    print(
        f"{output['duration']} s of speech, {output.get('word_count', 0)} words timed by "
        f"{output.get('timing_method') or 'nobody'}"
    )
    for name, reason in output["unavailable"].items():
        print(f"without {name}: {reason.splitlines()[0]}")
    for warning in output["warnings"]:
        print(f"warning: {warning}")


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def wait_until_open(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the worker takes jobs."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"the worker ended with {process.returncode}")
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise SystemExit("the worker took no jobs in time")


def heading(text: str) -> None:
    """Set a step apart."""
    print(f"\n── {text} ──", flush=True)


if __name__ == "__main__":
    sys.exit(main())
