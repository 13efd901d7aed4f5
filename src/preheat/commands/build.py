"""Builds what is compiled against the platform, ahead of any startup that needs it."""

from __future__ import annotations

from preheat.making.room import RoomMaker
from preheat.planning.session import working
from preheat.words.building import Work
from preheat.words.listener import Listener
from preheat.words.order import Order


def build_wheels(order: Order, listener: Listener) -> tuple[Work, ...]:
    """Has the store keep every wheel that is compiled against this platform.

    Raises:
        PreheatError: the store or the platform is unusable, or the index does not answer.
    """
    with working(order, listener) as session:
        state = RoomMaker(session=session).survey()
        return tuple(state.builder.ahead_of_time(each, state.request) for each in state.sources)
