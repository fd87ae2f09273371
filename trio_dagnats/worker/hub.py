"""What all attempts of one running worker share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import trio

from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.worker.aging import Agenda, Nursling
from trio_dagnats.worker.engine_facts import EngineFacts
from trio_dagnats.worker.entrance import Entrance
from trio_dagnats.worker.runwatch import RunWatch
from trio_dagnats.worker.settle import Settler
from trio_dagnats.worker.slots import Slots
from trio_dagnats.worker.stores import StepStore
from trio_dagnats.worker.telemetry import Telemetry

if TYPE_CHECKING:
    from trio_dagnats.worker.attempt import Attempt


@final
@dataclass(slots=True, kw_only=True)
class Hub:
    """What all attempts of one running worker share.

    Attributes:
        live: the attempts that are not over, in the order of their arrival.
        dispatches: the same by dispatch.
        entrance: where attempts begin.
        young: attempts that may end before they are worth watching.
        draining: set when the worker begins to drain.
        threads: bounds the trio threads of synchronous handlers.
        chores: a nursery for what nobody waits for; it outlives the attempts.
        silent: nobody wants spans.
        pipelined: handlers do not wait for their ``step.started`` to be stored.
        spawn: gives an attempt a task; does nothing once the worker has ended.
        empty: where the drain waits for the last attempt.
        reads: bounds the signals that are read at once.
        skipped: tasks skipped because their run was cancelled while they were queued.
        now: reads trio's clock, at half the price of asking trio for it.
    """

    broker: Broker
    worker_id: str
    telemetry: Telemetry
    slots: Slots
    entrance: "Entrance[Attempt]"
    young: "Nursling[Attempt]"
    agenda: Agenda
    watch: "RunWatch[Attempt]"
    facts: EngineFacts
    store: StepStore
    settler: Settler
    threads: trio.CapacityLimiter
    chores: trio.Nursery
    silent: bool
    pipelined: bool
    reads: trio.CapacityLimiter
    spawn: "Callable[[Attempt], None]" = field(default=lambda _: None)
    live: "dict[Attempt, None]" = field(default_factory=dict)
    dispatches: "dict[int, Attempt]" = field(default_factory=dict)
    draining: trio.Event = field(default_factory=trio.Event)
    empty: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    skipped: int = 0
    now: Callable[[], float] = field(
        default_factory=lambda: trio.lowlevel.current_clock().current_time
    )

    def join(self, attempt: "Attempt") -> None:
        """Add an attempt that has just arrived."""
        self.live[attempt] = None
        self.dispatches[attempt.dispatch] = attempt
        self.young.add(attempt, attempt.delivery.received_at)

    def leave(self, attempt: "Attempt") -> None:
        """Remove an attempt that is over, and free its slot."""
        attempt.over = True
        self.young.discard(attempt)
        del self.live[attempt]
        if self.dispatches.get(attempt.dispatch) is attempt:
            del self.dispatches[attempt.dispatch]
        if attempt.task is not NO_TASK:
            self.watch.leave(attempt)
        self.slots.ended(attempt.share)
        if not self.live:
            self.empty.unpark_all()

    async def emptied(self) -> None:
        """Wait until no attempt is left, with a task or without."""
        while self.live:
            await self.empty.park()
