"""What became of one package during a startup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from preheat.words.plan import Action, Step
from preheat.words.report import Status

READY: tuple[Status, ...] = ("platform", "reused", "installed")
_STATUS: Mapping[Action, Status] = {
    Action.PLATFORM: "platform",
    Action.REUSE: "reused",
    Action.INSTALL: "installed",
    Action.SKIP: "skipped",
}


class Cause(Enum):
    """Why a package is not ready; what this startup does about it, and the next one, depends on it.

    Attributes:
        UNMET: its condition does not hold here, and will not as long as manifest and platform stay.
        REFUSED: the plan leaves it out: it cannot be had, has failed before, or does not fit.
        FAILED: it cannot be installed, or an import or its check fails.
        NO_ROOM: the disk was full while it was made.
        DEADLINE: the deadline came first.
        TRANSIENT: the machine's trouble, or the network's.
        ARCHIVE_CHANGED: the index serves another archive than the one that was chosen.
        PACK: its packed layer cannot be used.
    """

    UNMET = "unmet"
    REFUSED = "refused"
    FAILED = "failed"
    NO_ROOM = "no room"
    DEADLINE = "deadline"
    TRANSIENT = "transient"
    ARCHIVE_CHANGED = "archive changed"
    PACK = "pack"


# Another startup may fare better at once.
_OF_THE_MOMENT = (Cause.DEADLINE, Cause.TRANSIENT, Cause.ARCHIVE_CHANGED, Cause.PACK)


@dataclass(kw_only=True)
class Outcome:
    """What became of one package, while it is being found out.

    Attributes:
        cause: why it is not ready; None where it is.
        actual: bytes on disk, as du counts them.
        fetched: bytes of archives that came.
        seconds: by stage.
        trace: traceback or the engine's words.
    """

    step: Step
    status: Status
    reason: str
    cause: Cause | None = None
    actual: int = 0
    fetched: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    trace: str = ""

    @classmethod
    def planned(cls, step: Step) -> Outcome:
        """What will have become of it, if all goes well."""
        cause = None
        if step.action is Action.SKIP:
            cause = Cause.REFUSED if step.wanted else Cause.UNMET
        return cls(step=step, status=_STATUS[step.action], reason=step.reason, cause=cause)

    def fail(self, reason: str, *, trace: str = "", cause: Cause = Cause.FAILED) -> None:
        """It was tried, and does not work."""
        self.status, self.reason, self.trace, self.cause = "failed", reason, trace, cause

    def skip(self, reason: str, cause: Cause) -> None:
        """It is left out, whether it works or not."""
        self.status, self.reason, self.cause = "skipped", reason, cause

    @property
    def good(self) -> bool:
        """Whether the package can be imported."""
        return self.status in READY

    @property
    def required(self) -> bool:
        """Whether the worker cannot live without it here: what is not wanted is not missed."""
        return self.step.package.required and self.step.wanted

    @property
    def remembered(self) -> bool:
        """Whether the next startup may go by it."""
        return self.cause not in _OF_THE_MOMENT
