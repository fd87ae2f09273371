"""What all attempts of one running worker share: the collaborators. No attempt is known here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import trio

from trio_dagnats.transport.port import Broker
from trio_dagnats.worker.attempts.timers import Timers
from trio_dagnats.worker.engine.facts import EngineFacts
from trio_dagnats.worker.engine.settle import Settler
from trio_dagnats.worker.engine.step_store import StepStore
from trio_dagnats.worker.intake.slots import Slots
from trio_dagnats.worker.telemetry import Telemetry


@final
@dataclass(slots=True, kw_only=True)
class Shared:
    """The collaborators of all attempts of one running worker.

    Made by ``service`` for one run of the worker; ``skipped`` aside nothing in it changes.

    Attributes:
        broker: the connected server.
        worker_id: the name that goes into events.
        slots: the ledger of what may run.
        timers: calls at given times; they run among the chores.
        draining: set when the worker begins to drain.
        threads: bounds the trio threads of synchronous handlers.
        chores: a nursery for what nobody waits for; it outlives the attempts.
        silent: nobody wants spans.
        pipelined: handlers do not wait for their ``step.started`` to be stored.
        reads: bounds the signals that are read at once.
        skipped: tasks skipped because their run was cancelled while they were queued.
        now: reads trio's clock, at half the price of asking trio for it.
    """

    broker: Broker
    worker_id: str
    telemetry: Telemetry
    slots: Slots
    timers: Timers
    facts: EngineFacts
    store: StepStore
    settler: Settler
    threads: trio.CapacityLimiter
    chores: trio.Nursery
    silent: bool
    pipelined: bool
    reads: trio.CapacityLimiter
    draining: trio.Event
    skipped: int = 0
    now: Callable[[], float] = field(
        default_factory=lambda: trio.lowlevel.current_clock().current_time
    )
