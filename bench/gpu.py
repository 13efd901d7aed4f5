"""On a GPU: what is told of CUDA against torch's own words, and an extension built, kept, reused.

`PREHEAT_BENCH_PYTHON` names the platform's interpreter, with CUDA torch; the running one is taken
otherwise. `PREHEAT_BENCH_WHEELS` names a directory with setuptools and ninja: no index is asked.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import ground
from preheat.edges.platform.cuda import read_cuda
from preheat.edges.platform.probe import probe

NAME = "preheat-saxpy"  # the index has another saxpy
SAXPY = ground.PROJECT / "tests" / "data" / "saxpy"
TOLD = """
import json, torch
print(json.dumps({
    "runtime": torch.version.cuda,
    "cudnn": torch.backends.cudnn.version(),  # major * 10000 + minor * 100 + patch
    "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    "cxx11-abi": str(torch._C._GLIBCXX_USE_CXX11_ABI).lower(),
    "compute-capability": "%d.%d" % torch.cuda.get_device_capability(0),
    "device": torch.cuda.get_device_name(0),
    "torch": torch.__version__,
}))
"""
# Another layer from the same wheel, where nothing can compile.
NO_COMPILER: Mapping[str, object] = {"compile": "none", "cuda": {"toolkit": "/"}}
STATED = 'no compiler, compile = "none"'
CHECK = """
import torch, saxpy
if torch.cuda.is_available():
    x, y = torch.randn(1 << 20, device="cuda"), torch.randn(1 << 20, device="cuda")
    # Fused on the GPU, where torch rounds twice.
    torch.testing.assert_close(saxpy.saxpy(3.0, x, y), 3.0 * x + y, rtol=1e-5, atol=1e-5)
"""


def measure() -> None:
    """Ask both, build, reuse; print tables and keep the figures."""
    python = os.environ.get("PREHEAT_BENCH_PYTHON", sys.executable)
    facts = compare(python)
    with TemporaryDirectory(prefix="preheat-gpu-") as place:
        built = build_and_reuse(Path(place), python)
    ground.keep("gpu", {"facts": facts, "saxpy": built})


def compare(python: str) -> list[dict[str, str]]:
    """Each fact as preheat reads it from files and the driver, beside what torch says of itself."""
    begin = time.perf_counter()
    platform = probe(python)
    cuda = read_cuda(platform, os.environ)
    seconds = time.perf_counter() - begin
    said: dict[str, Any] = json.loads(_run(python, "-c", TOLD))
    said["driver"] = _smi("driver_version")
    rows = [
        {
            "name": name,
            "preheat": fact.value,
            "source": fact.source,
            "torch or nvidia-smi": str(said.get(name, "")),
        }
        for name, fact in cuda.rows()
    ]
    ground.show(
        f"{said['device']}, torch {said['torch']}; probed in {seconds * 1000:.0f} ms",
        ("fact", "preheat", "torch, nvidia-smi", "read from"),
        ([r["name"], r["preheat"], r["torch or nvidia-smi"], r["source"]] for r in rows),
    )
    return rows


def build_and_reuse(place: Path, python: str) -> dict[str, object]:
    """The extension through `preheat build`, checked on the GPU, then without a compiler."""
    wheels = os.environ.get("PREHEAT_BENCH_WHEELS")
    shelf = place / "shelf"
    shelf.mkdir()
    write_sdist(SAXPY, shelf)
    package = {
        "name": NAME,
        "requires": [NAME],
        "imports": ["saxpy"],
        "check": CHECK,
        "check-gpu": True,
        "build": True,
        "build-isolation": False,
        "build-requires": ["setuptools", "ninja"],
        "build-limits": {"memory": "4GB", "disk": "1GB"},
    }
    index = {"find-links": [str(shelf), *([wheels] if wheels else [])]}
    manifest = ground.write_manifest(place / "preheat.toml", [package], index=index)
    common: tuple[str, ...] = (
        "--manifest",
        str(manifest),
        "--store",
        str(place / "store"),
        "--python",
        python,
    )
    common += ("--offline",) if wheels else ()
    built = json.loads(ground.platform_preheat("build", "--json", *common))
    started = json.loads(ground.platform_preheat("warm", "--json", *common))
    ground.write_manifest(manifest, [package], index=index, **NO_COMPILER)
    again = json.loads(ground.platform_preheat("warm", "--json", *common, PATH="/nonexistent"))
    (made,) = built["wheels"]
    rows = []
    for name, document in (("first worker", started), (f"second, {STATED}", again)):
        (row,) = document["packages"]
        rows.append([name, row["status"], f"{document['seconds']:.1f}", row["reason"]])
    provenance = made["provenance"] or {}
    ground.show(NAME, ("start", "status", "seconds", "reason"), rows)
    print(f"build: {made['status']} {made['reason']}")
    print(json.dumps(provenance, indent=1))
    return {"build": made, "starts": rows}


def write_sdist(tree: Path, shelf: Path) -> Path:
    """The extension as a source distribution (PEP 517, legacy backend)."""
    stem = f"{NAME.replace('-', '_')}-1.0"
    file = shelf / f"{stem}.tar.gz"
    about = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n"
    with tarfile.open(file, "w:gz") as archive:
        for name, data in (("PKG-INFO", about.encode()), *_files(tree)):
            member = tarfile.TarInfo(f"{stem}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def _files(tree: Path) -> Iterable[tuple[str, bytes]]:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(tree).as_posix(), path.read_bytes()


def _run(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _smi(field: str) -> str:
    return _run("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader").splitlines()[0]
