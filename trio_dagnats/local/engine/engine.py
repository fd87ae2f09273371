"""The local engine as people use it: ``async with LocalEngine(server.url)``.

::

    async with LocalEngine(url)
    └─ broker      a connection of its own, or the given one
       └─ nursery  everything below is one of its tasks; the first error ends them all
          ├─ Feed.run of the durables: history, timers, events, schedule
          ├─ a task per lane that has something to do
          └─ Api.run, started last: who gets an answer can start runs

Leaving the block cancels the nursery; there is no drain. What is in hand is NAKed on the way out
and comes to the next engine at once, and after a kill it comes when its ``ack_wait`` is over.
Either way nothing is lost, because a message is acknowledged only when its consequences are stored.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self, final

import trio

from trio_dagnats.errors import (
    BrokerError,
    EngineError,
    Missing,
    NotStored,
    UsageError,
    WireError,
    without_groups,
)
from trio_dagnats.local.engine import resources
from trio_dagnats.local.engine.api import PING, Api
from trio_dagnats.local.engine.conductor import TRY_AGAIN, Conductor, Item
from trio_dagnats.local.engine.correlator import Correlator
from trio_dagnats.local.engine.durable_reader import DurableReader
from trio_dagnats.local.engine.per_key_queue import PerKeyQueue
from trio_dagnats.local.engine.schedule import Schedule
from trio_dagnats.local.engine.sender import Sender
from trio_dagnats.logs import Log
from trio_dagnats.transport import ConnectOptions, NatsSource, open_broker
from trio_dagnats.transport.port import Broker, Delivery
from trio_dagnats.wire.names import WORKFLOW_HISTORY
from trio_dagnats.wire.scheduled import SCHEDULE_DURABLE

log = Log("trio_dagnats.local")

SET_UP_PATIENCE = 20.0
"""Seconds to create all streams and buckets, some thirty requests; a server that has them already
answers in a fraction of one.
"""
KNOCK = 0.5
"""Seconds that another engine has to answer.

Nobody answering takes no time (the server says so); only a hung engine takes all of it.
"""


@final
class LocalEngine:
    """Executes workflows on a nats-server: ``async with LocalEngine(server.url)``.

    For development and tests on one machine; production is the DagNats engine on a NATS cluster,
    and only the URL changes. What it does not do is refused when a workflow is registered.

    State is in the server alone, so the engine can be killed and started again at any time. An
    error of the engine leaves the block; cancelling the block is safe.

    Args:
        nats: a URL, several, a connected nats-py client, or a broker.
        options: how to connect, for URLs.

    Raises:
        EngineError: another engine serves this server.
        ConnectError: no usable server in time.
        Missing: the server has no JetStream.
    """

    def __init__(self, nats: NatsSource, options: ConnectOptions | None = None) -> None:
        self._nats = nats
        self._options = options
        self._block: AbstractAsyncContextManager[None] | None = None

    async def __aenter__(self) -> Self:
        """Set the server up and begin to serve; returns when runs can be started."""
        if self._block is not None:
            raise EngineError("this engine is running already; make another one")
        block = self._serving()
        await block.__aenter__()
        self._block = block  # not before: what could not start can be started again
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop at once: what is not finished goes on with the next engine on this server."""
        assert self._block is not None
        block, self._block = self._block, None
        await block.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """Set up, then serve for the length of the block.

        The engine's own errors leave the block without nursery groups around them; what the
        caller's block raises leaves it as it is.
        """
        with without_groups() as border:
            async with open_broker(self._nats, self._options) as broker:
                await _refuse_company(broker)
                await resources.ensure(broker, trio.current_time() + SET_UP_PATIENCE)
                async with trio.open_nursery() as nursery:
                    await _start(broker, nursery)
                    with border.callers_block():
                        yield
                    nursery.cancel_scope.cancel()


async def _start(broker: Broker, nursery: trio.Nursery) -> None:
    """Start all tasks; returns when requests are answered.

    What an engine before has left is read first (waiters, and who holds slots): an event that came
    before that would find nobody waiting.

    The two functions inside are called by the transport for each message, so they must not wait:
    they read, and give what is for a run to its lane. Each of them gives its credit back exactly
    once: here for a message that is done with at once, by the lane's worker (``Item.done``)
    otherwise.

    Events and timers of a run go through the same lane. Otherwise a timeout and the outcome that it
    races with would load, change and save one snapshot side by side.
    """
    sender = Sender(broker)
    await sender.load()
    conductor = Conductor(broker, sender)
    lanes: PerKeyQueue[Item] = PerKeyQueue(
        nursery, conductor.work, lambda item: item.delivery.nak()
    )

    def take_event(delivery: Delivery) -> None:
        found = conductor.read_event(delivery)
        if found is None:
            delivery.ack()
            history.done()
        else:
            run_id, what = found
            lanes.put(run_id, Item(what, delivery, history.done))

    def take_timer(delivery: Delivery) -> None:
        found = conductor.read_timer(delivery)
        if found is None:
            delivery.ack()
            timers.done()
            return
        run_id, left = found
        if left > 0:
            delivery.nak(left)  # the server wakes us: a timer outlives the engine
            timers.done()
        else:
            lanes.put(run_id, Item(conductor.timer_id(delivery), delivery, timers.done))

    history, timers = DurableReader(take_event), DurableReader(take_timer)
    nursery.start_soon(history.run, broker, resources.HISTORY_DURABLE)
    nursery.start_soon(timers.run, broker, resources.TIMER_DURABLE)
    _correlate(broker, nursery, sender.correlator)
    _schedule(broker, nursery)
    await nursery.start(Api(broker).run)


def _correlate(broker: Broker, nursery: trio.Nursery, correlator: Correlator) -> None:
    """Start matching what comes in on ``event.>`` with the steps that wait for it.

    A lane per subject keeps events of one type in their order; others do not wait for them.
    """

    async def deal(delivery: Delivery) -> None:
        await correlator.take(delivery.subject, delivery.body, delivery.published_ns)

    events = DurableReader(lambda delivery: lanes.put(delivery.subject, delivery))
    lanes = _lanes(nursery, deal, events.done)
    nursery.start_soon(events.run, broker, resources.EVENT_DURABLE)


def _schedule(broker: Broker, nursery: trio.Nursery) -> None:
    """Start beginning runs whose time has come.

    Their messages are handed back with what is left, like timers, so a run scheduled for next month
    costs the engine nothing until then but a place among the pending messages.
    """
    schedule = Schedule(broker)

    def take(delivery: Delivery) -> None:
        left = schedule.left(delivery.subject, delivery.body)
        if left is not None and left <= 0:
            lanes.put(delivery.subject, delivery)
            return
        if left is None:
            delivery.ack()
        else:
            delivery.nak(left)
        starts.done()

    starts = DurableReader(take)
    lanes = _lanes(nursery, lambda delivery: schedule.begin(delivery.body), starts.done)
    nursery.start_soon(starts.run, broker, SCHEDULE_DURABLE)


def _lanes(
    nursery: trio.Nursery,
    deal: Callable[[Delivery], Awaitable[None]],
    done: Callable[[], None],
) -> PerKeyQueue[Delivery]:
    """Return lanes that deal with messages of a subject in order; what fails comes again.

    A server that does not answer is waited for: the message is handed back for half a second.
    What can never be read is acknowledged with a line in the log; handed back it would come for
    ever.
    """

    async def work(subject: str, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            try:
                await deal(delivery)
            except BrokerError as error:
                log.warning("%s: %s; trying again", subject, error)
                delivery.nak(TRY_AGAIN)
            except (UsageError, WireError) as error:  # it would be the same every time
                log.warning("%s: %s; it is left out", subject, error)
                delivery.ack()
            else:
                delivery.ack()
            done()

    return PerKeyQueue(nursery, work, lambda delivery: delivery.nak())


async def _refuse_company(broker: Broker) -> None:
    """Raise if another engine serves this server: two would both dispatch every step.

    Two looks, because each misses something: the first one asks whoever serves the API (a
    DagNats engine, too), the second sees an engine that pulls from the history but does not
    answer. Two engines that start in the same moment see neither; the revision of the snapshots
    ends one of them then.
    """
    try:
        await broker.request(PING, b"", timeout=KNOCK)
    except (Missing, NotStored):
        pass
    else:
        raise EngineError("another engine serves this server; stop it, or use another server")
    try:
        durables = await broker.consumers(
            WORKFLOW_HISTORY, deadline=trio.current_time() + SET_UP_PATIENCE
        )
    except Missing:
        return  # a server that no engine has used yet
    if any(c.durable == resources.HISTORY_DURABLE and c.waiting for c in durables):
        raise EngineError(
            "another engine reads the history on this server; stop it, or use another server"
        )
