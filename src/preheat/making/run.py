"""How far a startup has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from preheat.decisions.plan import Progress
from preheat.making.fetch import Ahead
from preheat.planning.state import State
from preheat.words.manifest import Package
from preheat.words.outcome import Outcome
from preheat.words.plan import Action
from preheat.words.proof import Proof

# Cleaning and planning anew ends after that many shortages in one startup.
_TRIES_FOR_SPACE = 3


@dataclass(kw_only=True, slots=True)
class Run:
    """How far a startup has come, from package to package.

    Attributes:
        state: what is known by now.
        ahead: what is fetched before its turn.
        progress: what the layers of those packages hold whose turn has been.
        outcomes: of the same, in order.
        proofs: those that were made before their turn, by the keys of their verdicts; None for one
            that says little and is to be made again.
        tries_left: how often what does not fit may still be planned anew.
    """

    state: State
    ahead: Ahead
    progress: Progress = field(default_factory=Progress)
    outcomes: list[Outcome] = field(default_factory=list)
    proofs: dict[str, Proof | None] = field(default_factory=dict)
    tries_left: int = _TRIES_FOR_SPACE

    def planned(self, package: Package) -> Outcome:
        """What will become of a package, by what is known now and if all goes well."""
        step = self.state.planner.step(package, self.progress, self.after(package))
        return self.state.outcome(step)

    def conclude(self, outcome: Outcome) -> None:
        """A package's turn is over."""
        if outcome.status in ("installed", "reused"):
            self.progress.accept(outcome.step)
        elif outcome.status == "failed":
            # What it shared goes to others now: nothing is as it was planned.
            self.ahead.drop()
        self.outcomes.append(outcome)

    def replan(self, state: State) -> None:
        """Something turned out otherwise: what was fetched may not be what is wanted now."""
        self.ahead.drop()
        self.state = state

    def spend_try(self) -> bool:
        """Whether what does not fit may be planned anew once more."""
        if not self.tries_left:
            return False
        self.tries_left -= 1
        return True

    @property
    def good(self) -> list[Outcome]:
        """Of the packages that work by now."""
        return [outcome for outcome in self.outcomes if outcome.good]

    @property
    def needed_layers(self) -> tuple[str, ...]:
        """Layers that a working package was proved over, in order."""
        made = (outcome.step for outcome in self.good if outcome.status != "platform")
        needed = {name for step in made for name in (*step.over, step.layer)}
        return tuple(name for name in self.progress.layers if name in needed)

    def layers_with(self, layer: str) -> list[str]:
        """The layers so far, and that one on top, where it is one and not among them."""
        there = self.progress.layers
        return [*there, *([layer] if layer and layer not in there else [])]

    @property
    def coming(self) -> tuple[Package, ...]:
        """The packages whose turn is still to come, the next one first."""
        return self.state.packages[len(self.outcomes) :]

    def after(self, package: Package) -> tuple[Package, ...]:
        """The packages that come after one."""
        packages = self.state.packages
        return packages[packages.index(package) + 1 :]

    def is_last(self, package: Package) -> bool:
        """Whether nothing is to be made after it."""
        return all(each.name in self.state.planner.fixed for each in self.after(package))

    def is_only(self, package: Package) -> bool:
        """Whether no other package works beside it, made before or provided by the platform."""
        if not self.is_last(package) or self.good:
            return False
        fixed = self.state.planner.fixed
        return not any(fixed[p.name].action is Action.PLATFORM for p in self.after(package))
