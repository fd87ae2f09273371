"""Who waits for which event: ``event_waiters``, and what comes in on ``event.>`` (contract 7).

An event and a wait for it race. Both orders end well::

    the wait is first    the waiter is known when the event comes in (``take``)
    the event is first   it came while the wait began: the stream is read from then on (``add``)

The two may find the same event. What the run is told then has one id, so the server drops the
second one; and a step takes only the first event that matches, for it is over afterwards.

The bucket is the truth, the dictionary in memory its copy: written by ``add`` and ``remove`` only,
which the sender calls, and read at the start. Values are resolved when a wait begins, so matching
an event needs no run to be loaded.
"""

from typing import final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from trio_dagnats.local.engine.core.state import (
    CANCEL,
    Effect,
    RunState,
)
from trio_dagnats.local.engine.core.values.paths import matches, wanted
from trio_dagnats.logs import Log
from trio_dagnats.transport.events import store_event
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire import events
from trio_dagnats.wire.events import Event, EventType
from trio_dagnats.wire.ids import Id
from trio_dagnats.wire.names import EVENTS, event_subject
from trio_dagnats.wire.text import compact, is_json

log = Log("trio_dagnats.local")

BUCKET = "event_waiters"
PREFIX = event_subject("")
CANCELS = "cancel"
"""The action of a waiter whose event cancels its run; the others complete a step."""


@final
class Resolved(BaseModel):
    """A match whose right side is a value."""

    model_config = ConfigDict(frozen=True)

    left: str
    op: str = "eq"
    right: object = None


@final
class Waiter(BaseModel):
    """A step that waits for an event.

    ``event_type`` is an exact one: the engine listens to all events, and looks waiters up by it.
    ``step_id`` is a step, or ``__cancel_<n>`` for an event that cancels the run.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: Id
    step_id: Id
    event_type: Id
    match: Resolved
    action: str = ""

    @property
    def key(self) -> str:
        """The key that it is stored under."""
        return f"{self.event_type}.{self.run_id}.{self.step_id}"


@final
class Correlator:
    """Matches events with waiters, whichever of them comes to us first.

    A step gets the events that were stored after its wait began. The DagNats engine loses one that
    comes before the waiter is known to it; here the stream is read once when a wait begins.

    Called by the sender (``add``, ``remove``) for runs side by side, and by one lane per subject
    (``take``). There is no lock: each of them is right whatever the others are just doing.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiters: dict[str, dict[str, tuple[Waiter, int]]] = {}

    async def load(self) -> None:
        """Read who waits.

        Raises:
            BrokerError: the server did not answer in time.
        """
        for entry in await self._broker.kv_entries(BUCKET, deadline=deadline_in()):
            try:
                self._keep(Waiter.model_validate_json(entry.value), entry.time_ns)
            except ValidationError:
                log.warning("%s in %s is no waiter; it is left out", entry.key, BUCKET)

    async def add(self, effect: Effect, state: RunState) -> None:
        """Let a step wait, also for what has come since its wait began.

        Raises:
            BrokerError: not stored in time; adding again is safe.
        """
        waiter, since_ns = _waiter(effect, state), state.book.at_ns
        body = compact(waiter)
        await self._broker.kv_put(BUCKET, waiter.key, body, deadline=deadline_in())
        self._keep(waiter, since_ns)
        subject = event_subject(waiter.event_type)
        for record in await self._broker.records(
            EVENTS, subject, since_ns=since_ns, deadline=deadline_in()
        ):
            await self._match(waiter, record.body)

    async def remove(self, effect: Effect, state: RunState) -> None:
        """Let a step wait no longer.

        Raises:
            BrokerError: not stored in time; removing again is safe.
        """
        event, _ = state.waits_for(effect.step_id)
        key = f"{event}.{state.run.run_id}.{effect.step_id}"
        await self._broker.kv_delete(BUCKET, key, deadline=deadline_in())
        waiting = self._waiters.get(event, {})
        waiting.pop(key, None)
        if not waiting:
            self._waiters.pop(event, None)

    async def take(self, subject: str, body: bytes, time_ns: int) -> None:
        """Tell the runs that wait for an event.

        ``time_ns`` is when the server stored the event; one from before the wait began is not
        for it. The waiter stays until the run, when it is told, takes it back.

        Raises:
            BrokerError: not stored in time; telling again is safe.
        """
        waiting = self._waiters.get(subject.removeprefix(PREFIX), {})
        for waiter, since_ns in list(waiting.values()):
            if time_ns >= since_ns:
                await self._match(waiter, body)

    def _keep(self, waiter: Waiter, since_ns: int) -> None:
        self._waiters.setdefault(waiter.event_type, {})[waiter.key] = (waiter, since_ns)

    async def _match(self, waiter: Waiter, body: bytes) -> None:
        """Store what the run is told if the event matches; what is no JSON matches nothing."""
        if not is_json(body):  # the DagNats engine's process ends over an empty one (contract H8)
            return
        event: object = from_json(body)
        if not matches(waiter.match.left, waiter.match.right, event):
            return
        told = _told(waiter, body, self._broker.time_ns())
        await store_event(self._broker, told, deadline=deadline_in())


def _told(waiter: Waiter, body: bytes, now_ns: int) -> Event:
    run_id = waiter.run_id
    if waiter.action == CANCELS:
        return events.cancelled(run_id, now_ns, body)
    return events.answered(EventType.WAIT_MATCHED, run_id, waiter.step_id, body, now_ns)


def _waiter(effect: Effect, state: RunState) -> Waiter:
    event, match = state.waits_for(effect.step_id)
    _, right = wanted(match, state)
    return Waiter(
        run_id=state.run.run_id,
        step_id=effect.step_id,
        event_type=event,
        match=Resolved(left=match.left, right=right),
        action=CANCELS if effect.step_id.startswith(CANCEL) else "",
    )
