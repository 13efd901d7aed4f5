"""What became of one package during a start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from preheat.words.plan import Action, Step
from preheat.words.report import Status

READY: tuple[Status, ...] = ("platform", "reused", "installed")
_STATUS: Mapping[Action, Status] = {
    Action.PLATFORM: "platform",
    Action.REUSE: "reused",
    Action.INSTALL: "installed",
    Action.SKIP: "skipped",
}


@dataclass(kw_only=True)
class Outcome:
    """What became of one package, while it is being found out.

    Attributes:
        lasting: a skip that holds as long as manifest and platform do: an unmet condition.
        remembered: whether the next start may go by it; False for what a deadline decided.
        damaged: its packed layer turned out to be, and is gone.
        short_of_space: the disk was full while it was made.
        actual: bytes on disk, as du counts them.
        fetched: bytes of archives that came.
        seconds: by stage.
        trace: traceback or the engine's words.
    """

    step: Step
    status: Status
    reason: str
    lasting: bool = False
    remembered: bool = True
    damaged: bool = False
    short_of_space: bool = False
    actual: int = 0
    fetched: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    trace: str = ""

    @classmethod
    def planned(cls, step: Step) -> Outcome:
        """What will have become of it, if all goes well."""
        return cls(step=step, status=_STATUS[step.action], reason=step.reason)

    @property
    def good(self) -> bool:
        """Whether the package can be imported."""
        return self.status in READY

    @property
    def required(self) -> bool:
        """Whether the worker cannot live without it here: what is not wanted is not missed."""
        return self.step.package.required and not self.lasting
