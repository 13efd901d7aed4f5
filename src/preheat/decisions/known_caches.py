"""The caches of other programs that may be cleaned, the cheapest loss first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from preheat.words.cleaning import Place, Tier

_HOUR_SECONDS = 3600.0
# Names of temporary directories: pip's, from its source, and our own.
_TEMPORARY = (
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
class UserPlaces:
    """What tells where this user's programs keep their caches.

    Attributes:
        home: the home directory.
        temp: where programs put temporary files.
        user: the login name, which torch's inductor puts into a path.
        environment: variables that move caches.
        extra: directories that the manifest adds; what lies in them may go.
        system: prefix of the system's own directories; empty but in tests.
        unused: returns, for a package cache of conda's, the packages that no environment uses.
    """

    home: str
    temp: str
    user: str
    environment: Mapping[str, str]
    extra: Sequence[str] = ()
    system: str = ""
    unused: Callable[[str], Sequence[str]] = lambda cache: ()

    @property
    def cache(self) -> str:
        """The user's cache directory (XDG Base Directory Specification)."""
        return self.environment.get("XDG_CACHE_HOME") or f"{self.home}/.cache"


def tiers(places: UserPlaces) -> tuple[Tier, ...]:
    """Everything outside the store that may be cleaned; each root is a directory known by name."""
    return (
        Tier(
            name="temporary directories of installers that died",
            loss="nothing",
            places=(Place(root=places.temp, patterns=_TEMPORARY, age=_HOUR_SECONDS, whole=True),),
        ),
        *_of_python_installers(places),
        *_of_conda(places),
        _of_apt(places),
        *_of_models(places),
        Tier(
            name="what the manifest adds",
            loss="as the manifest knows",
            places=tuple(Place(root=root) for root in places.extra),
        ),
    )


def _of_python_installers(places: UserPlaces) -> Iterator[Tier]:
    env, cache = places.environment, places.cache
    yield Tier(
        name="pip's cache",
        loss="pip downloads again",
        places=(
            Place(
                root=env.get("PIP_CACHE_DIR") or f"{cache}/pip",
                patterns=("http", "http-v2", "wheels", "selfcheck"),
            ),
        ),
    )
    yield Tier(
        name="uv's cache",
        loss="uv downloads again",
        places=(Place(root=env.get("UV_CACHE_DIR") or f"{cache}/uv", patterns=_UV_BUCKETS),),
    )


def _of_conda(places: UserPlaces) -> Iterator[Tier]:
    roots = _conda_caches(places)
    yield Tier(
        name="conda's archives",
        loss="conda downloads again",
        places=tuple(Place(root=root, patterns=("*.conda", "*.tar.bz2")) for root in roots),
    )
    yield Tier(
        name="conda's unused packages",
        loss="conda unpacks again",
        places=tuple(
            Place(root=root, patterns=tuple(map(_literal, places.unused(root))), whole=True)
            for root in roots
        ),
    )


def _of_apt(places: UserPlaces) -> Tier:
    return Tier(
        name="apt's archives and lists",
        loss="apt-get update before the next apt-get install",
        places=(
            Place(root=f"{places.system}/var/cache/apt/archives", patterns=("*.deb",)),
            Place(
                root=f"{places.system}/var/lib/apt/lists",
                patterns=("*_Packages*", "*_InRelease"),
            ),
        ),
    )


def _of_models(places: UserPlaces) -> Iterator[Tier]:
    env = places.environment
    hub = env.get("HF_HUB_CACHE") or f"{env.get('HF_HOME') or f'{places.cache}/huggingface'}/hub"
    triton = env.get("TRITON_CACHE_DIR") or f"{places.home}/.triton/cache"
    inductor = env.get("TORCHINDUCTOR_CACHE_DIR") or f"{places.temp}/torchinductor_{places.user}"
    yield Tier(
        name="incomplete model downloads",
        loss="the download begins anew",
        places=(Place(root=hub, within="*.incomplete", age=_HOUR_SECONDS),),
    )
    yield Tier(
        name="compiler caches",
        loss="kernels are compiled again",
        places=(
            Place(root=triton, age=_HOUR_SECONDS),
            Place(root=inductor, age=_HOUR_SECONDS),
        ),
    )


def _literal(name: str) -> str:
    """The pattern (fnmatch) that only that name fits."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _conda_caches(places: UserPlaces) -> tuple[str, ...]:
    """Directories of conda's package caches."""
    env = places.environment
    stated = env.get("CONDA_PKGS_DIRS", "")
    if stated:
        return tuple(part for part in stated.replace(",", ":").split(":") if part)
    roots = [
        env.get("CONDA_PREFIX", ""),
        f"{places.system}/opt/conda",
        f"{places.home}/miniconda3",
    ]
    return tuple(dict.fromkeys(f"{root}/pkgs" for root in roots if root))
