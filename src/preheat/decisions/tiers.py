"""Which directories are known to be caches, the cheapest loss first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from preheat.words.cleaning import Place, Tier

_HOUR = 3600.0
# tempfile's prefixes in pip's source, and our own.
_INSTALLERS = (
    "pip-install-*",
    "pip-unpack-*",
    "pip-req-build-*",
    "pip-modern-metadata-*",
    "pip-metadata-*",
    "pip-ephem-wheel-cache-*",
    "pip-standalone-pip-*",
    "pip-wheel-*",
    "pip-build-env-*",
    "pip-build-tracker-*",
    "pip-target-*",
    "pip-uninstall-*",
    "preheat-proof-*",
    "preheat-plan-*",
    "preheat-lock-*",
)
# The buckets of uv's cache, whatever their versions.
_UV_BUCKETS = tuple(
    f"{name}-v*"
    for name in (
        "archive",
        "binaries",
        "builds",
        "environments",
        "flat-index",
        "git",
        "interpreter",
        "sdists",
        "simple",
        "wheels",
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Habitat:
    """Where this user's programs keep things.

    Attributes:
        home: the home directory.
        temp: where programs put temporary files.
        user: the login name, which torch's inductor puts into a path.
        environment: variables that move caches.
        extra: directories that the manifest adds; what lies in them may go.
        system: prefix of the system's own directories; empty but in tests.
        unused: tells of a package cache of conda's which packages no environment was made of.
    """

    home: str
    temp: str
    user: str
    environment: Mapping[str, str]
    extra: Sequence[str] = ()
    system: str = ""
    unused: Callable[[str], Sequence[str]] = lambda cache: ()


def tiers(habitat: Habitat) -> tuple[Tier, ...]:
    """Everything outside the store that may be cleaned; each root is a known name."""
    home, env = habitat.home, habitat.environment
    cache = env.get("XDG_CACHE_HOME") or f"{home}/.cache"
    hub = env.get("HF_HUB_CACHE") or f"{env.get('HF_HOME') or f'{cache}/huggingface'}/hub"
    inductor = env.get("TORCHINDUCTOR_CACHE_DIR") or (
        f"{habitat.temp}/torchinductor_{habitat.user}"
    )
    return (
        Tier(
            name="temporary directories of installers that died",
            loss="nothing",
            places=(Place(root=habitat.temp, patterns=_INSTALLERS, age=_HOUR, whole=True),),
        ),
        Tier(
            name="pip's cache",
            loss="pip downloads again",
            places=(
                Place(
                    root=env.get("PIP_CACHE_DIR") or f"{cache}/pip",
                    patterns=("http", "http-v2", "wheels", "selfcheck"),
                ),
            ),
        ),
        Tier(
            name="uv's cache",
            loss="uv downloads again",
            places=(Place(root=env.get("UV_CACHE_DIR") or f"{cache}/uv", patterns=_UV_BUCKETS),),
        ),
        Tier(
            name="conda's archives",
            loss="conda downloads again",
            places=tuple(
                Place(root=root, patterns=("*.conda", "*.tar.bz2")) for root in _conda(habitat)
            ),
        ),
        Tier(
            name="conda's unused packages",
            loss="conda unpacks again",
            places=tuple(
                Place(root=root, patterns=tuple(map(_literal, habitat.unused(root))), whole=True)
                for root in _conda(habitat)
            ),
        ),
        Tier(
            name="apt's archives and lists",
            loss="apt-get update before the next apt-get install",
            places=(
                Place(root=f"{habitat.system}/var/cache/apt/archives", patterns=("*.deb",)),
                Place(
                    root=f"{habitat.system}/var/lib/apt/lists",
                    patterns=("*_Packages*", "*_InRelease"),
                ),
            ),
        ),
        Tier(
            name="incomplete model downloads",
            loss="the download begins anew",
            places=(Place(root=hub, within="*.incomplete", age=_HOUR),),
        ),
        Tier(
            name="compiler caches",
            loss="kernels are compiled again",
            places=(
                Place(root=env.get("TRITON_CACHE_DIR") or f"{home}/.triton/cache", age=_HOUR),
                Place(root=inductor, age=_HOUR),
            ),
        ),
        Tier(
            name="what the manifest adds",
            loss="as the manifest knows",
            places=tuple(Place(root=root) for root in habitat.extra),
        ),
    )


def _literal(name: str) -> str:
    """The pattern that fits that name only."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _conda(habitat: Habitat) -> tuple[str, ...]:
    env = habitat.environment
    stated = env.get("CONDA_PKGS_DIRS", "")
    if stated:
        return tuple(part for part in stated.replace(",", ":").split(":") if part)
    roots = [
        env.get("CONDA_PREFIX", ""),
        f"{habitat.system}/opt/conda",
        f"{habitat.home}/miniconda3",
    ]
    return tuple(dict.fromkeys(f"{root}/pkgs" for root in roots if root))
