"""Where tasks come from: what a pull loop and the worker's directory need to know of a consumer."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from trio_dagnats.transport.port import ConsumerState, Intake, IntakeSink
from trio_dagnats.worker.intake.served import Served

Found = Mapping[str, Sequence[ConsumerState]]
"""The consumers that the server has, by stream."""


class Source(Protocol):
    """A consumer on the server from which tasks of one served type are pulled.

    What waits raises ``BrokerError`` when the server does not answer, or refuses.
    """

    @property
    def served(self) -> Served:
        """What is served from it."""
        ...

    @property
    def stream(self) -> str:
        """The stream that it is on."""
        ...

    @property
    def consumer(self) -> str:
        """Its name on the server."""
        ...

    async def listed(self) -> Sequence[ConsumerState]:
        """Return all consumers of its stream."""
        ...

    async def ensure(self, found: Found) -> ConsumerState:
        """Create the consumer, or take over the live one; return it as it is now.

        Args:
            found: what the server has; to ask anew for each of a hundred would cost a hundred
                times a list of a hundred.

        Raises:
            UsageError: another consumer on the server stands in the way; the text names it.
        """
        ...

    async def restore(self, found: Found) -> bool:
        """Put the consumer back in shape if somebody has changed it; say whether it had to be."""
        ...

    def intake(self, sink: IntakeSink, *, fresh: float) -> AbstractAsyncContextManager[Intake]:
        """Open the subscription for its pulls; see ``port.Broker.intake``."""
        ...


async def find(sources: Iterable[Source]) -> Found:
    """List what the server has of the streams of these sources, each stream once."""
    of_streams = {source.stream: source for source in sources}
    return {stream: await source.listed() for stream, source in of_streams.items()}
