"""The start of the worker: packages first, models second, each stage timed and logged.

Nothing but the standard library and ``import preheat`` is loaded here until preheat has put its
layers on the path; a module that is imported earlier would keep the platform's version.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import preheat
from f5_tts_worker.logs import say
from f5_tts_worker.settings import Settings, read_settings

if TYPE_CHECKING:
    from f5_tts_worker.attention_backend import Attention
    from f5_tts_worker.synthesis import Synthesizer
    from f5_tts_worker.timing import TimingService, WordTiming

Loader = Callable[[Settings], "Synthesizer"]
Service = Callable[[], "TimingService"]
T = TypeVar("T")

# What reads these does so when it is imported: set later, they change nothing.
_READ_AT_IMPORT: Final = ("huggingface_hub", "transformers", "cached_path", "nltk")

# The disk is full, over its quota, broken or read-only: another machine may have a better one.
_BAD_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
# By name, since torch is not imported where a start fails before it. AcceleratorError is what
# torch raises for a CUDA error since 2.8; an out-of-memory error at the start is the machine's too.
_BAD_DEVICE: Final = ("AcceleratorError", "OutOfMemoryError")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A part of the start and what it took."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why the worker cannot speak."""

    stage: str
    message: str
    replace: bool
    """Whether the machine is to blame, so that another may do better: a fitness check then ends
    this worker. Any other failure would befall every worker, so jobs are answered with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """What came of a start. Without a failure there are settings, and somebody to speak."""

    settings: Settings | None = None
    stages: tuple[Stage, ...] = ()
    warm: bool = False
    """preheat's short path was taken: nothing was installed."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """What became of each package of the manifest, by name."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """What this worker does without, each with the reason."""
    attention: str | None = None
    """The package that computes it, once a model is loaded."""
    synthesizer: Synthesizer | None = None
    timing: WordTiming | None = None
    failure: Failure | None = None

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)


def load_f5(settings: Settings) -> Synthesizer:
    """Load F5-TTS as the settings say."""
    from f5_tts_worker.synthesis import F5Synthesizer

    return F5Synthesizer.load(settings.model, settings.models / "hub")


def initialize_models(
    environment: Mapping[str, str] = os.environ, load: Loader = load_f5
) -> Started:
    """Make the packages importable, then load what they need. Never raises: a failure is kept.

    Args:
        environment: where the settings are read from.
        load: makes whoever speaks, once the packages are there.
    """
    start = _Start()
    failure = None
    try:
        start.go(environment, load)
    except _StageError as error:
        cause = error.__cause__
        failure = Failure(
            stage=error.stage,
            message=f"{type(cause).__name__}: {cause}",
            replace=is_of_this_machine(cause),
        )
    started = replace(start.known, stages=tuple(start.stages), failure=failure)
    _tell(started)
    return started


def is_of_this_machine(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is a fault of this machine or its network."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _BAD_DISK:
            return True
        if isinstance(error, ConnectionError | TimeoutError):
            return True
        if type(error).__name__ in _BAD_DEVICE or "CUDA error" in str(error):
            return True
        if isinstance(error, preheat.PreheatError) and error.code == "store":
            return True
        error = error.__cause__ or error.__context__
    return False


class _Start:
    """A start on its way: what is known of it, and what its stages took."""

    def __init__(self) -> None:
        self.known = Started()
        self.stages: list[Stage] = []

    def go(self, environment: Mapping[str, str], load: Loader) -> None:
        """Go through the stages in order.

        Raises:
            _StageError: one failed; what was known before it stays.
        """
        settings = self._timed("settings", lambda: read_settings(environment))
        self.known = replace(self.known, settings=settings)
        self._timed("caches", lambda: point_caches(settings))
        ready = self._timed("packages", lambda: preheat.warm(settings.manifest))
        self.known = replace(
            self.known,
            warm=ready.warm,
            packages={package.name: package.status for package in ready},
            unavailable={package.name: package.reason for package in ready if not package.ok},
        )
        wanted = _chosen(ready, "attention")
        synthesizer, attention = self._timed("model", lambda: _loaded(load, settings, wanted))
        self.known = replace(self.known, synthesizer=synthesizer, attention=attention.by)
        services = _services(settings, synthesizer.device)
        self.known = self._timed("timing", lambda: _with_timing(self.known, services))

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        begin = time.perf_counter()
        say("stage", name=name)
        try:
            return work()
        except Exception as error:
            raise _StageError(name) from error
        finally:
            self.stages.append(Stage(name=name, seconds=time.perf_counter() - begin))


def _loaded(load: Loader, settings: Settings, wanted: str | None) -> tuple[Synthesizer, Attention]:
    """Whoever speaks, and who computes its attention."""
    synthesizer = load(settings)
    attention = synthesizer.attend(wanted)
    say("attention", by=attention.by, wanted=wanted, why_not=attention.why_not)
    return synthesizer, attention


def point_caches(settings: Settings) -> None:
    """Make every library that fetches models keep them where they outlive the container.

    Raises:
        RuntimeError: one of them was imported already, and would not notice.
        OSError: the directories cannot be made.
    """
    already = [name for name in _READ_AT_IMPORT if name in sys.modules]
    if already:
        raise RuntimeError(f"imported before the model caches were set: {', '.join(already)}")
    models = settings.models
    places = {
        "HF_HOME": models / "huggingface",
        "HF_HUB_CACHE": models / "hub",
        "TORCH_HOME": models / "torch",
        "CACHED_PATH_CACHE_ROOT": models / "cached_path",
        "NLTK_DATA": models / "nltk_data",
        "MPLCONFIGDIR": settings.data / "matplotlib",
        "NUMBA_CACHE_DIR": settings.data / "numba",
    }
    for name, place in places.items():
        place.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(place)
    settings.voices.mkdir(parents=True, exist_ok=True)


def _with_timing(started: Started, made_by: Mapping[str, Service]) -> Started:
    """Whoever can time words, best first; who cannot is one more thing to do without."""
    from f5_tts_worker.timing import WordTiming

    unavailable = dict(started.unavailable)
    services: list[TimingService] = []
    for package, make in made_by.items():
        if package not in started.packages or package in unavailable:
            continue
        try:
            services.append(make())
        except Exception as error:  # noqa: BLE001  # whatever it is, the voice is not to suffer
            unavailable[package] = f"{type(error).__name__}: {error}"
    timing = WordTiming(services)
    return replace(started, timing=timing, unavailable=unavailable)


def _services(settings: Settings, device: str) -> dict[str, Service]:
    """By the package that each needs, the preferred one first."""

    def whisperx() -> TimingService:
        from f5_tts_worker import whisperx_timing

        return whisperx_timing.load(settings.alignment.whisperx_models, settings.models, device)

    def google() -> TimingService:
        from f5_tts_worker.google_timing import GoogleSettings, GoogleTiming

        return GoogleTiming(GoogleSettings(api_endpoint=settings.alignment.google_endpoint))

    return {"whisperx": whisperx, "google-cloud-speech": google}


def _chosen(ready: preheat.Ready, capability: str) -> str | None:
    try:
        return ready.choose(capability)
    except KeyError:
        return None


class _StageError(Exception):
    """A stage failed; the cause says how."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage = stage


def _tell(started: Started) -> None:
    data = started.settings.data if started.settings else Path.cwd()
    say(
        "started" if started.failure is None else "start-failed",
        seconds=round(started.seconds, 3),
        stages={stage.name: round(stage.seconds, 3) for stage in started.stages},
        warm=started.warm,
        packages=dict(started.packages),
        unavailable=dict(started.unavailable),
        word_timing=list(started.timing.methods) if started.timing else [],
        attention=started.attention,
        storage=_storage(started.settings),
        free_bytes=_free(data),
        failure=None if started.failure is None else started.failure.message,
        replace=None if started.failure is None else started.failure.replace,
    )


def _storage(settings: Settings | None) -> str | None:
    if settings is None:
        return None
    if settings.bucket is not None:
        return f"bucket {settings.bucket.name}"
    return f"inline, up to {settings.inline_limit} bytes an answer: S3_BUCKET is not set"


def _free(place: Path) -> int | None:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
