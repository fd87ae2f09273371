"""Asking all workers at once how their attempts stand (``wire/micro``, ``wire/tree``).

::

    the directory      who should answer: Python workers that were seen within the last minute
    INFO to all        who does: each service tells its own subject
    a question each    in parts, as a worker's attempts need not fit one message

It is over when everybody who is expected or was found has told all, or with the timeout. Workers
that the directory does not know (it may be missing) are found by the first question as well; then
nobody knows how many there are, and ``QUIET`` seconds without an answer end it.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import final

import trio

from trio_dagnats.errors import UsageError, WireError
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire import micro
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.text import whole
from trio_dagnats.wire.tree import AttemptTree, read_part

QUIET = 0.3
"""Seconds without an answer after which nobody else is expected, on a server without directory."""
MOST_PARTS = 1000
"""Parts of answers that may wait unread.

More are dropped: the worker then counts as one that has not told all.
"""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAttempts:
    """One worker, and how its attempts stand.

    Attributes:
        worker_id: the worker.
        hostname: its machine.
        pid: its process, 0 if it is not known.
        attempts: those in flight, oldest first; None if it did not answer: it has died within the
            last minute, its event loop is blocked, or its account may not be asked.
    """

    worker_id: str
    hostname: str = ""
    pid: int = 0
    attempts: tuple[AttemptTree, ...] | None = None


async def ask_workers(
    broker: Broker, directory: Iterable[WorkerRegistration], worker_id: str, timeout: float
) -> list[WorkerAttempts]:
    """Ask all workers, or one, and wait for those that the directory knows; see ``Client``.

    Called by ``Client.attempts``. The inbox is of one call only, and closed with it: late
    answers go to nobody. Workers in other languages have no such endpoint and are not waited
    for.
    """
    survey = _Survey()
    for worker in directory:
        if worker.language == "python" and worker_id in {"", worker.worker_id}:
            survey.expect(worker.worker_id, worker.hostname, worker.pid)
    send, receive = trio.open_memory_channel[Message](MOST_PARTS)

    def hear(message: Message | None) -> None:
        if message is not None:
            with suppress(trio.WouldBlock):
                send.send_nowait(message)

    inbox = broker.new_inbox()
    async with broker.listen(f"{inbox}.*", hear):
        await broker.publish(
            micro.verb_subject(micro.Verb.INFO, worker_id), b"", reply=f"{inbox}.{micro.Verb.INFO}"
        )
        with trio.move_on_after(timeout):
            await _collect(broker, survey, receive, inbox)
    return survey.found()


async def _collect(
    broker: Broker, survey: "_Survey", receive: trio.MemoryReceiveChannel[Message], inbox: str
) -> None:
    """Take answers until all have told, or, when nobody is expected, until it is quiet.

    What is no answer of a worker of ours is left out: anybody may publish into an inbox that he
    sees.
    """
    while not survey.is_over:
        with trio.move_on_after(float("inf") if survey.missing else QUIET) as quiet:
            message = await receive.receive()
        if quiet.cancelled_caught:
            return
        try:
            if message.subject.endswith(f".{micro.Verb.INFO}"):
                info = micro.read_info(message.body)
                number = survey.discover(info)
                await broker.publish(info.subject, b"", reply=f"{inbox}.{number}")
            else:
                survey.take(message.subject.rpartition(".")[2], message.body)
        except (UsageError, WireError):
            continue  # not from one of our workers; who does not tell is named in the result


@final
@dataclass(slots=True)
class _Asked:
    """One worker while it is asked.

    ``parts`` is the number of the next part; ``over`` is set by the last one.
    """

    worker_id: str
    hostname: str
    pid: int
    told: list[AttemptTree] = field(default_factory=list)
    parts: int = 0
    over: bool = False


@final
class _Survey:
    """Who is expected, who was found, and what they have told.

    Pure: the rules of who is waited for, without a message. Answers are told apart by the number
    in the subject that they were sent to, not by what they say.
    """

    def __init__(self) -> None:
        self._workers: dict[str, _Asked] = {}
        self._numbers: list[_Asked] = []

    @property
    def missing(self) -> bool:
        """Whether somebody has not told all yet."""
        return not all(worker.over for worker in self._workers.values())

    @property
    def is_over(self) -> bool:
        """Whether there is somebody, and all have told."""
        return bool(self._workers) and not self.missing

    def expect(self, worker_id: str, hostname: str, pid: int) -> _Asked:
        """Enter a worker.

        One that is entered already stays as it is: the directory and an answer may name the same
        worker.
        """
        return self._workers.setdefault(worker_id, _Asked(worker_id, hostname, pid))

    def discover(self, info: micro.ServiceInfo) -> int:
        """Enter a worker that has answered; return the number under which it is asked."""
        if not info.subject:
            raise WireError(f"worker {info.worker_id!r} has no endpoint {micro.ENDPOINT!r}")
        self._numbers.append(self.expect(info.worker_id, info.hostname, info.pid))
        return len(self._numbers) - 1

    def take(self, token: str, body: bytes) -> None:
        """Take a part; one that is out of order means that another was lost."""
        number = whole(token)
        if number is None or number >= len(self._numbers):
            raise WireError(f"an answer to a question that was not asked: {token!r}")
        part, worker = read_part(body), self._numbers[number]
        if part.part == worker.parts and not worker.over:
            worker.parts += 1
            worker.told += part.attempts
            worker.over = not part.more

    def found(self) -> list[WorkerAttempts]:
        """Return the workers by their ids."""
        return [
            WorkerAttempts(
                worker_id=worker.worker_id,
                hostname=worker.hostname,
                pid=worker.pid,
                attempts=tuple(worker.told) if worker.over else None,
            )
            for _, worker in sorted(self._workers.items())
        ]
