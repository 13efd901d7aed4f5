"""Names made of content: equal things have equal names on every worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from preheat.words.lock import Locked
from preheat.words.manifest import Manifest, Package
from preheat.words.platform import Accelerator, Platform
from preheat.words.stand_in import Link

_LAYER_FORMAT = 1


def digest(document: object) -> str:
    """Hex sha256 of a JSON-able document in its one canonical spelling."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def platform_digest(platform: Platform) -> str:
    """Names a platform by interpreter ABI and every distribution that an import would see.

    Every one, not only those that a layer declares: numpy is used by many that do not say so.
    """
    interpreter = platform.interpreter
    return digest(
        {
            "python": interpreter.version,
            "abi": interpreter.abi,
            "libc": interpreter.libc,
            "machine": interpreter.machine,
            "distributions": sorted(
                (d.name, d.version or "") for d in platform.distributions if d.state.present
            ),
        }
    )


def layer_digest(
    distributions: Iterable[Locked],
    platform: Platform,
    *,
    bytecode: str,
    links: Iterable[Link] = (),
) -> str:
    """Names a layer by its archives, ABI, C library, build inputs and links.

    Source distributions count the platform's torch as a build input.
    """
    interpreter = platform.interpreter
    archives = sorted((d.name, d.archive.sha256) for d in distributions)
    built = any(not d.archive.is_wheel for d in distributions)
    linked = sorted((link.path, link.target, link.sha256) for link in links)
    return digest(
        {
            **({"links": linked} if linked else {}),
            "format": _LAYER_FORMAT,
            "archives": archives,
            "abi": interpreter.abi,
            "cache_tag": interpreter.cache_tag,
            "libc": interpreter.libc,
            "machine": interpreter.machine,
            "bytecode": bytecode,
            "torch": platform.torch.version if built and platform.torch else None,
        }
    )[:32]


def verdict_key(layers: Sequence[str], package: Package, platform: Platform) -> str:
    """Names what was proved: a package over ordered layers on a platform, driver and GPUs.

    What killed installs left counts as well: half a package is still found by whoever looks for it.
    """
    left = sorted((d.name, d.version or "", d.state.value) for d in platform.leftovers)
    return digest(
        {
            **({"leftovers": left} if left else {}),
            "layers": list(layers),
            "imports": package.imports,
            "check": package.check,
            "check_gpu": package.check_gpu,
            "platform": platform_digest(platform),
            "accelerator": _accelerator(platform.accelerator),
        }
    )


def manifest_digest(manifest: Manifest, protect: Sequence[str] | None = None) -> str:
    """Names what a manifest asks to be resolved; checks and conditions do not change a lock.

    Args:
        manifest: whose packages.
        protect: the protected set where a setting states another one than the manifest.
    """
    return digest(
        {
            "packages": [
                {
                    "name": package.name,
                    "requires": package.requires,
                    "exclude": package.exclude,
                    "override": package.override,
                    "build": package.may_build,
                    "isolation": package.build_isolation,
                }
                for package in manifest.package
            ],
            "protected": list(manifest.protected if protect is None else protect),
        }
    )


def _accelerator(accelerator: Accelerator) -> list[object]:
    gpus = [(gpu.name, gpu.compute_capability) for gpu in accelerator.gpus]
    return [accelerator.driver, gpus]
