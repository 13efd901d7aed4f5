"""What is to be proved by one process."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from preheat.decisions.identity import digest, verdict_key
from preheat.edges.proof.runner import Stack
from preheat.words.manifest import Package
from preheat.words.platform import Platform

TORCH = "torch-of-the-platform"
"""The name of the platform's torch, where it is proved like a package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Packages to import one after the other, in one process, over layers and a platform.

    Attributes:
        packages: in order.
        stack: what lies on the path.
        platform: what lies beneath.
        with_torch: whether the platform's torch must import after them, too.
        stop: set when nobody waits for it any more. A trial that can be stopped so goes no further
            than the first failure.
    """

    packages: tuple[Package, ...]
    stack: Stack
    platform: Platform
    with_torch: bool = False
    stop: threading.Event | None = None

    @property
    def wanted(self) -> tuple[Package, ...]:
        """All that is imported."""
        if self.with_torch and self.platform.torch:
            return (*self.packages, torch_over(self.stack))
        return self.packages

    @property
    def on_gpus(self) -> tuple[Package, ...]:
        """Packages that are checked once more with a GPU in sight, since there is one."""
        gpus = self.platform.accelerator.gpus
        return tuple(package for package in self.packages if package.check_gpu and gpus)

    @property
    def key(self) -> str:
        """Of the verdict that all of them work together."""
        layers = [layer.digest for layer in self.stack.layers]
        return digest([verdict_key(layers, each, self.platform) for each in self.packages])


def torch_over(stack: Stack) -> Package:
    """The platform's torch as a package: it imports, and from the platform."""
    check = f"import torch\nassert not torch.__file__.startswith({stack.paths!r}), torch.__file__"
    return Package(name=TORCH, requires=("torch",), imports=("torch",), check=check)
