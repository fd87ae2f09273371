"""Steering: a signal that reaches a handler inside a model call or a tool, and ends only that.

Built on the wait for a signal: a subscription that wakes, and a direct read. What becomes of a
message, by when it arrives:

* before the block: the block's first await is cancelled;
* inside it: the block is cancelled there, and only it;
* at its very end: the block's result stands, and the message is there as well;
* after it: it waits for the next block, or the next ``wait_for_signal`` of that name.

A signal is a register (design 8.4): of two messages that nobody has taken yet, the later one is
all that is left. Once one was taken, the next one goes to the next block. A taken message is
consumed for good by the handler's next commit (``Continue``, ``checkpoint``, ``continue_`` or
``complete``); a handler that starts again before that gets it again, at its first block.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final

import trio

from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Entry
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.context.waits import signal_register
from trio_dagnats.worker.engine.signal_register import SignalRegister

log = Log("trio_dagnats.worker")


@final
class _Block:
    """One steered block: the scope that a message cancels, and the watch that looks for it."""

    def __init__(self, attempt: Attempt, name: str) -> None:
        self.attempt = attempt
        self.name = name
        self.message: bytes | None = None
        self.scope = trio.CancelScope()
        self.watch = trio.CancelScope()

    def take(self, entry: Entry) -> None:
        """Take a message and end the block, unless it is over: then whoever looks next has it."""
        if not self.watch.cancel_called:
            self.attempt.memory.received(self.name, entry.revision)
            self.message = entry.value
            self.scope.cancel()

    async def wait(self, register: SignalRegister) -> None:
        """Wait for the message until the block ends."""
        with self.watch:
            try:
                self.take(await register.wait())
            except BrokerError as error:
                log.warning("%s: steering %r ended: %s", self.attempt.label, self.name, error)


@final
class Inbox:
    """The message that a steered block got, if any; made by ``TaskContext.steering``.

    ::

        async with ctx.steering("steer") as inbox:
            reply = await model(conversation)
        if inbox.interrupted:
            conversation.append(inbox.message.decode())  # and there is no reply
    """

    __slots__ = ("_block",)

    def __init__(self, block: _Block) -> None:
        self._block = block

    def __repr__(self) -> str:
        return f"<Inbox {self._block.name!r} message={self.message!r}>"

    @property
    def message(self) -> bytes | None:
        """The message, None if none has come; after the block it does not change any more."""
        return self._block.message

    @property
    def interrupted(self) -> bool:
        """Whether the message has cut the block short, so that it has no result."""
        return self._block.scope.cancelled_caught


@asynccontextmanager
async def steering(attempt: Attempt, name: str) -> AsyncIterator[Inbox]:
    """Let a signal cancel a block; see ``TaskContext.steering``.

    The watch does not live in a nursery of the handler: errors of the block would leave in a
    group, and a wait inside it could not give up its slot.
    """
    block = _Block(attempt, name)
    register = await signal_register(attempt, name)
    entry = await register.look()
    if entry is not None:
        block.take(entry)
    else:
        attempt.shared.chores.start_soon(block.wait, register)
    try:
        with block.scope:
            yield Inbox(block)
    finally:
        block.watch.cancel()
