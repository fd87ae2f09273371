"""The worker's endpoint for those who look at it: a NATS micro service (``wire/micro``).

Subscriptions that nobody writes to cost nothing. Questions are answered one after the other, and
many attempts in several turns of the event loop; when too many are asked, the rest gets no answer.

| asked | answered | what it costs |
|---|---|---|
| PING, INFO, STATS (all workers, or one by its id) | one small message | nothing to speak of |
| the endpoint of this worker | its attempts, in parts | some milliseconds a part |

::

    run ──> subscribe ──> answer, until the connection fails ──> AGAIN seconds later ──┐
     ^         └── once: ask ourselves, and warn if that is refused                    │
     └─────────────────────────────────────────────────────────────────────────────────┘

It must never be a worker's trouble: a server that forbids the subjects is logged, an answer that
cannot be sent is counted, and between two parts the handlers have their turn.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import final

import trio

from trio_dagnats.errors import BrokerError, DagnatsError, without_groups
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire import micro
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.tree import parts
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.observe.task_trees import attempt_trees

log = Log("trio_dagnats.worker")

MOST_QUESTIONS = 64
"""Questions that may wait for their answers."""
CHECK_PATIENCE = 5.0
"""Seconds for the answer to our own PING."""
AGAIN = 30.0
"""Seconds until the subscriptions are tried again on a server that did not answer."""


@final
class MicroService:
    """Answers PING, INFO and STATS, and tells of the attempts in flight.

    Its numbers (STATS) are those of its endpoint in this run of the worker, not of tasks.

    Args:
        broker: the connected server.
        registration: who we are.
        live: gives the attempts in flight.
    """

    def __init__(
        self,
        broker: Broker,
        registration: WorkerRegistration,
        live: Callable[[], Iterable[Attempt]],
    ) -> None:
        self._broker = broker
        self._registration = registration
        self._live = live
        self._started_ns = broker.time_ns()
        self._stats = micro.EndpointStats()
        self._warned = False

    async def run(self) -> None:
        """Serve until cancelled; an account that forbids it costs a warning.

        One warning: further ones are for the debug log, as it is tried again and again.
        """
        while True:
            try:
                with without_groups():
                    await self._serve()
            except BrokerError as error:
                self._warn(error)
            await trio.sleep(AGAIN)

    async def _serve(self) -> None:
        """Subscribe, and answer one question after the other.

        The questions wait in a channel of ``MOST_QUESTIONS``, because the transport that brings
        them must not wait: what finds it full is counted as an error, and gets no answer.
        """
        worker_id = self._registration.worker_id
        send, receive = trio.open_memory_channel[Message](MOST_QUESTIONS)

        def hear(message: Message | None) -> None:
            if message is not None and message.reply:
                try:
                    send.send_nowait(message)
                except trio.WouldBlock:
                    self._fail("too many questions at once")

        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for subject in (*micro.heard_subjects(worker_id), micro.endpoint_subject(worker_id)):
                await stack.enter_async_context(self._broker.listen(subject, hear))
            nursery.start_soon(self._check)
            async for question in receive:
                await self._answer(question)

    async def _check(self) -> None:
        """Ask ourselves: a server tells nobody that it has refused a subscription."""
        subject = micro.verb_subject(micro.Verb.PING, self._registration.worker_id)
        try:
            await self._broker.request(subject, b"", timeout=CHECK_PATIENCE)
        except BrokerError as error:
            self._warn(error)

    async def _answer(self, question: Message) -> None:
        """Answer one question; what goes wrong is counted, and told by STATS."""
        verb = micro.verb_of(question.subject)
        try:
            if verb is None:
                await self._tell_attempts(question.reply)
            else:
                body = micro.answer(verb, self._registration, self._started_ns, self._stats)
                await self._broker.publish(question.reply, body)
        except DagnatsError as error:  # one answer, and nobody else's trouble
            self._fail(str(error))

    async def _tell_attempts(self, reply: str) -> None:
        """Send the attempts in flight, part by part.

        Each part says how they stand as it is made, so that two parts are of two moments.
        """
        begun = time.perf_counter_ns()
        self._stats.requests += 1
        for part in self._parts():
            await self._broker.publish(reply, part)
            await trio.lowlevel.checkpoint()  # the handlers' turn: a part may take milliseconds
        self._stats.processing_ns += time.perf_counter_ns() - begun

    def _parts(self) -> Iterator[bytes]:
        trees = attempt_trees(self._live())
        return parts(self._registration.worker_id, trees, self._broker.max_payload)

    def _fail(self, why: str) -> None:
        self._stats.errors += 1
        self._stats.last_error = why

    def _warn(self, error: BrokerError) -> None:
        """Say once that nobody can look at this worker, and what its account would need."""
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        log.log(
            level,
            "this worker cannot be looked at (`trio-dagnats ps`), all else works: its account may "
            "not subscribe or publish to %s.> and %s.>: %s",
            micro.PREFIX,
            micro.SERVICE,
            error,
        )
