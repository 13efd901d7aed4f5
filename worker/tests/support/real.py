"""The worker with the real packages, around the index's own torch, which imports without a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from uv import find_uv_bin

from worker.tests.support.running import HANDLER, RunningWorker, running, surroundings
from worker.tests.support.runpod_service import RunPodService

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parents[3]
WORKER = PROJECT / "worker"
TINY_MODEL = PROJECT / "demo" / "tiny_model.py"
PROVIDES = ("torch==2.13.0", "numpy==2.4.6", str(PROJECT), str(WORKER))
MINUTES = 1200.0

_INDEX = ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX", "UV_FIND_LINKS", "UV_INDEX", "UV_KEYRING")


@dataclass(frozen=True, kw_only=True, slots=True)
class RealGround:
    """A platform that has torch and the worker, a store for all starts on it, and tiny models."""

    home: Path

    @property
    def python(self) -> Path:
        """The platform's interpreter."""
        return self.home / "platform" / "bin" / "python"

    @property
    def site(self) -> Path:
        """Where the platform keeps its packages."""
        (found,) = (self.home / "platform" / "lib").glob("python*/site-packages")
        return found

    @property
    def models(self) -> Path:
        """The tiny models."""
        return self.home / "models"

    def environment(self, manifest: Path, **more: str) -> dict[str, str]:
        """What the worker is told: a manifest, the store that all share, and the models."""
        index = {name: value for name, value in os.environ.items() if name.startswith(_INDEX)}
        netrc = Path.home() / ".netrc"
        if netrc.is_file():
            index.setdefault("NETRC", str(netrc))
        return {
            **index,
            "PREHEAT_STORE": str(self.home / "store"),
            "WORKER_MANIFEST": str(manifest),
            "F5_TTS_MODEL": str(self.models / "model.yaml"),
            "F5_TTS_CHECKPOINT": str(self.models / "model.safetensors"),
            "F5_TTS_VOCODER": str(self.models / "vocos"),
            "F5_TTS_DEVICE": "cpu",
            "WHISPERX_MODELS": f"en={self.models / 'wav2vec2'}",
            # Nothing is fetched that is not in the manifest.
            "HF_HUB_OFFLINE": "1",
            **more,
        }

    @contextmanager
    def running(
        self, place: Path, manifest: Path, runpod: RunPodService, **more: str
    ) -> Iterator[RunningWorker]:
        """The container's own program in the platform, once its start has ended, well or not."""
        environment = {**self.environment(manifest, **more), **runpod.environment}
        with running((self.python, "-u", HANDLER), place, environment) as worker:
            yield worker


def make_ground(home: Path) -> RealGround:
    """Make the platform as images are made, warm it with the worker's manifest, make the models."""
    ground = RealGround(home=home)
    uv("venv", "--quiet", "--python", sys.executable, str(home / "platform"))
    uv("pip", "install", "--quiet", "--python", str(ground.python), *PROVIDES)
    manifest = write_manifest(home, {})
    command = (str(ground.python), str(TINY_MODEL), str(manifest), str(ground.models))
    environment = surroundings(home / "first", ground.environment(manifest))
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=MINUTES, check=False
    )
    assert done.returncode == 0, done.stderr
    return ground


def write_manifest(place: Path, tables: Mapping[str, Any]) -> Path:
    """The worker's own manifest, with what this machine needs to be tried on.

    flash-attn is wanted without a GPU too: what stands in for it needs none.
    """
    document = tomllib.loads((WORKER / "preheat.toml").read_text(encoding="utf-8"))
    for package in document["package"]:
        package.pop("when", None)
        if package["name"] == "flash-attn":
            package["build"] = False
    document |= {"space": {"keep-free": 0, "clean-below": 0}, "compile": "imported", **tables}
    place.mkdir(parents=True, exist_ok=True)
    file = place / "preheat.toml"
    file.write_text(tomli_w.dumps(document), encoding="utf-8")
    return file


def service_account(place: Path) -> Path:
    """The key file of an account that nobody has given any right."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "test@test.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://127.0.0.1:9/token",
    }
    file = place / "account.json"
    file.write_text(json.dumps(account), encoding="utf-8")
    return file


def uv(*arguments: str) -> None:
    """Run uv with this machine's own configuration."""
    subprocess.run((find_uv_bin(), *arguments), check=True, timeout=MINUTES)


def remove(ground: RealGround) -> None:
    """Give the gigabytes back."""
    shutil.rmtree(ground.home)
