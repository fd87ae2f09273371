"""Every exception of this package, in one tree.

::

    DagnatsError                  never raised itself: catch it to catch all of them
    ├── UsageError         what the caller did: names, handlers, options, calls out of turn
    │   └── OutcomeError   a second outcome for one attempt, or one after its end
    ├── BrokerError        what the connection or the server did
    │   ├── ConnectError   no usable server in time, or the connection ended for good
    │   ├── NotStored      a publish was not acknowledged in time: it may or may not be stored
    │   ├── Conflict       a conditional publish found a newer message (or a stored id)
    │   ├── TooLarge       more bytes than the server's ``max_payload``
    │   └── Missing        no such stream, bucket, consumer or service on this server
    ├── EngineError        what the DagNats engine answered, or did not answer
    │   └── Refused        its answer is that it will not do it; the text is the engine's own
    ├── RunFailed          a run ended otherwise than ``completed``
    ├── WireError          a message or a value that cannot be read as what it should be
    └── HandlerError       raised by handlers on purpose
        ├── Retryable      try again in place, on any worker
        ├── Fatal          never try again
        └── RateLimited    the engine shall try again after a delay

A user never sees an exception of nats-py or asyncio: the transport translates them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from trio_dagnats.inspection import class_name, leaves, text_of

__all__ = [
    "Border",
    "BrokerError",
    "Conflict",
    "ConnectError",
    "DagnatsError",
    "EngineError",
    "Fatal",
    "HandlerError",
    "Missing",
    "NotStored",
    "OutcomeError",
    "RateLimited",
    "Refused",
    "Retryable",
    "RunFailed",
    "TooLarge",
    "UsageError",
    "WireError",
    "asked_at_once",
    "is_fatal",
    "is_retryable",
    "unfold",
    "unwrap_group",
    "without_groups",
]


class DagnatsError(Exception):
    """The root of this package's exceptions; only its subclasses are raised."""


class UsageError(DagnatsError):
    """The caller's mistake; the text names the value and the remedy."""


@final
class OutcomeError(UsageError):
    """An outcome was declared twice for one attempt, or after the attempt had ended."""


class BrokerError(DagnatsError):
    """The connection or the server did not do what was asked."""


@final
class ConnectError(BrokerError):
    """No usable server within the deadline, or the connection ended for good."""


@final
class NotStored(BrokerError):  # noqa: N818 - named for what the caller must assume
    """No acknowledgement in time: the message may or may not be stored."""


@final
class Conflict(BrokerError):  # noqa: N818 - named for what happened
    """The subject's last sequence is not the expected one; nothing was stored by this send."""


@final
class TooLarge(BrokerError):  # noqa: N818 - named for what happened
    """Headers and body together exceed the server's ``max_payload``; nothing was sent."""


@final
class Missing(BrokerError):  # noqa: N818 - named for what happened
    """The stream, bucket, consumer or service does not exist on this server."""


class EngineError(DagnatsError):
    """The engine refused a request, or did not answer it in time."""


@final
class Refused(EngineError):  # noqa: N818 - named for what happened
    """The engine answered that it will not do what was asked; the reason is its own."""


@final
class RunFailed(DagnatsError):  # noqa: N818 - named for what happened
    """A run ended otherwise than ``completed``, so it has no output."""


class WireError(DagnatsError):
    """Bytes that are not what DagNats sends or stores in their place."""


class HandlerError(DagnatsError):
    """What a handler raises on purpose to say how the engine shall go on.

    Args:
        err: the text, or the exception whose text is taken; it becomes the cause.
    """

    def __init__(self, err: str | BaseException = "") -> None:
        caused = isinstance(err, BaseException)
        super().__init__(text_of(err) or class_name(err if caused else self))
        if isinstance(err, BaseException):
            self.__cause__ = err


@final
class Retryable(HandlerError):  # noqa: N818 - named for what shall happen
    """Try the same attempt again in place: the task message is handed back with a delay.

    No event is published and the engine's retry budget is untouched. After a bounded number
    of times the attempt fails as ``retriable`` and the engine's retry policy decides.

    Args:
        err: the text, or the exception whose text is taken.
        delay: seconds until redelivery; None for a back-off that grows with each time.
    """

    def __init__(self, err: str | BaseException = "", *, delay: float | None = None) -> None:
        super().__init__(err)
        if delay is not None and not 0 <= delay <= 86_400:
            raise UsageError(f"Retryable delay must be 0 to 86400 seconds, not {delay!r}")
        self.delay = delay


@final
class Fatal(HandlerError):  # noqa: N818 - named for what shall happen
    """Never try again: the step fails as ``non_retriable`` whatever its retry policy says."""


@final
class RateLimited(HandlerError):  # noqa: N818 - named for what shall happen
    """The engine shall run the step again after a delay (``retry_after``).

    Args:
        err: the text, or the exception whose text is taken.
        after: seconds; the engine takes 0.1 to 3600 and the worker clamps to that.
    """

    def __init__(self, err: str | BaseException = "", after: float = 1.0) -> None:
        super().__init__(err)
        if not after >= 0:  # also refuses NaN
            raise UsageError(f"RateLimited after must be seconds >= 0, not {after!r}")
        self.after = after


def is_retryable(err: BaseException) -> bool:
    """Say whether a handler that ends with this exception may run again.

    Everything may, but :class:`Fatal`: a plain error is retried by the engine's policy.
    Looks through exception groups and causes, like :func:`is_fatal`.
    """
    return not is_fatal(err)


def is_fatal(err: BaseException) -> bool:
    """Say whether it, anything grouped in it, or any of its causes is :class:`Fatal`."""
    return any(isinstance(found, Fatal) for found in unfold(err))


def unfold(err: BaseException) -> Iterator[BaseException]:
    """Yield an exception, the members of groups, and the explicit causes of each, once each."""
    seen: set[int] = set()
    todo: list[BaseException] = [err]
    while todo:
        found = todo.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, BaseExceptionGroup):
            todo.extend(found.exceptions)
        if found.__cause__ is not None:
            todo.append(found.__cause__)


def unwrap_group(error: BaseException, own: BaseException | None = None) -> BaseException:
    """Unwrap groups of one: what went wrong once needs no group of our nurseries around it.

    Args:
        error: the group.
        own: what the caller's block raised; a group of the caller's own stays as it is.
    """
    if isinstance(own, BaseExceptionGroup) and _ids(error) == _ids(own):
        return own  # trio may have copied the group on its way
    error = _without_consequences(error)
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@final
class Border:
    """Where the groups of our own nurseries end; see :func:`without_groups`."""

    own: BaseException | None = None

    @contextmanager
    def callers_block(self) -> Iterator[None]:
        """Mark the caller's block: a group that is raised in it is the caller's own and stays."""
        try:
            yield
        except BaseException as error:
            self.own = error
            raise


@contextmanager
def without_groups() -> Iterator[Border]:
    """Let what goes wrong once leave a block without the groups of the nurseries in it.

    The error keeps its own ``__cause__``, which ``raise ... from None`` would wipe out.
    """
    border = Border()
    try:
        yield border
    except BaseExceptionGroup as group:
        found = unwrap_group(group, border.own)
        raise found from found.__cause__


@contextmanager
def asked_at_once() -> Iterator[None]:
    """As :func:`without_groups`, where all in the nursery ask the server for parts of one thing.

    When only the server has failed them, the first error stands for all.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        only = group.split(BrokerError)[1] is None
        found = next(leaves(group)) if only else unwrap_group(group)
        raise found from found.__cause__


def _without_consequences(error: BaseException) -> BaseException:
    """Leave out what a connection that has ended has made of everything that was asked on it."""
    if isinstance(error, BaseExceptionGroup):
        ended, rest = error.split(ConnectError)
        if ended is not None and rest is not None and rest.split(BrokerError)[1] is None:
            return ended
    return error


def _ids(error: BaseException) -> list[int]:
    return [id(leaf) for leaf in leaves(error)]
