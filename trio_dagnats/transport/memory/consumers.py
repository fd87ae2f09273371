"""Durable pull consumers in memory: who gets which message, and what answers to it mean.

Where a message of the consumer stands::

    new ──> _todo ──┐                               ┌─ ACK, TERM ─────────────> gone
                    ├─ a pull is open ──> _leases ──┤
          _again ───┘  (_again first)               ├─ NAK, or the lease ends ─> _again
             ^                                      └─ NAK with a delay ───────> _held
             └──────────────────────── the delay is over ─────────────────────────┘

``max_ack_pending`` bounds ``_leases`` and ``_held`` together, and stops new messages only. So a
thousand pauses stop a durable with a bound of a thousand (contract H37), here as there.

The answers are the server's, its oddities included (contract 14): an ``+ACK`` counts by whichever
delivery it comes, a ``-NAK`` makes another delivery beside a live one, a ``+WPI`` without a lease
is no error. That is what makes a stale answer dangerous, and what tests of leases are about.

Simpler than there: pulls are served in the order of their coming, ``max_deliver`` is looked at when
a lease lapses only, and there is neither back-off nor a bound on open pulls.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import trio

from trio_dagnats.transport.memory.clockwork import Clockwork
from trio_dagnats.transport.memory.subjects import matches
from trio_dagnats.transport.port import ConsumerSpec, ConsumerState, Record
from trio_dagnats.wire.text import NS


class Puller(Protocol):
    """An intake that has asked for messages; called by the clockwork, must not wait."""

    def hand_out(self, consumer: "Consumer", record: Record, deliveries: int) -> None:
        """Take a message on its way to the intake; lost if the connection is."""
        ...

    def expired(self, left: int) -> None:
        """Take back the credits of a pull that has ended."""
        ...

    def gone(self, left: int) -> None:
        """Take back the credits of a pull whose consumer was deleted."""
        ...


@final
@dataclass(slots=True, eq=False)
class Pull:
    """An open pull: who asked, for how many, until when (trio time).

    One that is meant ``once`` has ended when it ``brought`` something and there is no more. Before
    it has brought anything it waits like any other, until its time.
    """

    puller: Puller
    left: int
    until: float
    once: bool = False
    brought: bool = False


@final
class Answer(NamedTuple):
    """An answer to a delivery: by which durable and delivery, what, and to which message.

    Only what has arrived is one. Tests read them (``MemoryServer.answers``) to see that nothing was
    said that must not be said, which no state of the server would show.
    """

    durable: str
    deliveries: int
    body: str
    sequence: int


@final
class Consumer:
    """A durable.

    Written to by the clockwork (deliveries, leases, ends of pulls), by its stream (``add``), and by
    answers that arrive. None of them waits, so it is never entered twice at once.

    Args:
        spec: its configuration.
        clockwork: makes its calls.
        find: returns a message that is still in the stream.
        remove: takes a message out of a work queue.
        answers: gets each answer that arrives.
    """

    def __init__(
        self,
        spec: ConsumerSpec,
        clockwork: Clockwork,
        find: Callable[[int], Record | None],
        remove: Callable[[int], None],
        answers: deque[Answer],
    ) -> None:
        self._answers = answers
        self.spec = spec
        self._clockwork = clockwork
        self._find = find
        self._remove = remove
        self._todo: deque[int] = deque()
        self._again: deque[int] = deque()
        self._leases: dict[int, float] = {}
        self._held: set[int] = set()
        self._deliveries: dict[int, int] = {}
        self._pulls: deque[Pull] = deque()

    def state(self) -> ConsumerState:
        """Return what the server would report; messages held back count as unanswered."""
        return ConsumerState(
            name=self.spec.durable,
            durable=self.spec.durable,
            filter_subject=self.spec.filter_subject,
            ack_wait_ns=self.spec.ack_wait_ns,
            max_ack_pending=self.spec.max_ack_pending,
            pending=len(self._todo),
            ack_pending=len(self._leases) + len(self._held),
            waiting=len(self._pulls),
        )

    def wants(self, subject: str) -> bool:
        """Say whether messages of a subject are for this consumer.

        On a work queue at most one says yes: filters that overlap are refused when they are made.
        """
        return matches(self.spec.filter_subject, subject)

    def add(self, sequence: int) -> None:
        """Take a new message of the stream; one that waits for a pull to come, or for room."""
        self._todo.append(sequence)
        self.serve()

    def pull(self, pull: Pull) -> None:
        """Take a request for messages; it ends by itself at its time."""
        self._pulls.append(pull)
        self._clockwork.at(pull.until, self._expire)
        self.serve()

    def forget(self, puller: Puller) -> None:
        """Drop the pulls of an intake that is gone; nobody is told, for nobody is there."""
        self._pulls = deque(p for p in self._pulls if p.puller is not puller)

    def delete(self) -> None:
        """End all pulls: the consumer is no more.

        Answers to what it has handed out still find it, through their deliveries: an ``+ACK`` takes
        the message out of the queue even then.
        """
        pulls, self._pulls = self._pulls, deque()
        for pull in pulls:
            pull.puller.gone(pull.left)

    def serve(self) -> None:
        """Hand out what can be handed out, one after another, in the next turn."""
        self._clockwork.post(self._serve_one)

    def note(self, sequence: int, deliveries: int, body: str) -> None:
        """Remember an answer, for tests that want to see it; called before what it does."""
        self._answers.append(Answer(self.spec.durable, deliveries, body, sequence))

    def ack(self, sequence: int) -> None:
        """Be done with a message; also by a delivery that has expired (contract 5)."""
        self._leases.pop(sequence, None)
        self._held.discard(sequence)
        self._deliveries.pop(sequence, None)
        self._remove(sequence)
        self.serve()

    def nak(self, sequence: int, delay: float) -> None:
        """Deliver a message again after ``delay``; also beside a live delivery (contract 14)."""
        if self._find(sequence) is None:
            return
        self._leases.pop(sequence, None)
        if delay <= 0:
            self._again.append(sequence)
            self.serve()
            return
        self._held.add(sequence)  # it still counts as pending (contract H37)
        self._clockwork.at(trio.current_time() + delay, lambda: self._release(sequence))

    def renew(self, sequence: int) -> None:
        """Extend a lease, whoever holds it; nothing to extend is no error (contract 14).

        So a confirmed renewal proves contact only, which is why a lease is counted in time.
        """
        if sequence in self._leases:
            self._lease(sequence)

    def _release(self, sequence: int) -> None:
        """Let a message go that was handed back with a delay, unless it was answered meanwhile."""
        if sequence in self._held:
            self._held.discard(sequence)
            self._again.append(sequence)
            self.serve()

    def _serve_one(self) -> None:
        """Hand out one message, and look again in the next turn.

        A message that somebody took out meanwhile is passed over. One that is handed to an intake
        whose connection is cut counts as delivered and is lost, and so has a lease to run out.
        """
        sequence = self._next()
        if sequence is None:
            if not self._todo:
                self._end(lambda pull: pull.once and pull.brought)
            return
        record = self._find(sequence)
        if record is None:
            self._deliveries.pop(sequence, None)
            self.serve()
            return
        count = self._deliveries[sequence] = self._deliveries.get(sequence, 0) + 1
        pull = self._pulls[0]
        pull.left -= 1
        pull.brought = True
        if not pull.left:
            self._pulls.popleft()
        pull.puller.hand_out(self, record, count)
        self._lease(sequence)
        self.serve()

    def _next(self) -> int | None:
        """Take the next message that may be handed out; None if there is none, or nobody asks."""
        if not self._pulls:
            return None
        if self._again:
            return self._again.popleft()
        if len(self._leases) + len(self._held) >= self.spec.max_ack_pending or not self._todo:
            return None
        return self._todo.popleft()

    def _lease(self, sequence: int) -> None:
        """Begin a lease of ``ack_wait``, or begin it anew; a call for its earlier end sees it."""
        until = trio.current_time() + self.spec.ack_wait_ns / NS
        self._leases[sequence] = until
        self._clockwork.at(until, lambda: self._lapse(sequence, until))

    def _lapse(self, sequence: int, until: float) -> None:
        """End a lease, unless it was renewed or answered since this call was ordered."""
        if self._leases.get(sequence) != until:
            return
        del self._leases[sequence]
        most = self.spec.max_deliver
        if most < 0 or self._deliveries.get(sequence, 0) < most:
            self._again.append(sequence)
            self.serve()

    def _expire(self) -> None:
        now = trio.current_time()
        self._end(lambda pull: pull.until <= now)

    def _end(self, over: Callable[[Pull], bool]) -> None:
        """End the pulls that are over, and give their credits back."""
        for pull in [pull for pull in self._pulls if over(pull)]:
            self._pulls.remove(pull)
            pull.puller.expired(pull.left)
