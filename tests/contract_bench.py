"""What the tests of the contract share: a place of their own on a server, and a sink."""

from dataclasses import dataclass, field

import trio

from trio_dagnats.transport.port import (
    Broker,
    ConsumerSpec,
    ConsumerState,
    Delivery,
    PullEnd,
    StreamSpec,
)

NS = 1_000_000_000
PATIENCE = 10.0


@dataclass
class Sink:
    """Collects what an intake hands out, and lets a test wait for it."""

    deliveries: list[Delivery] = field(default_factory=list)
    returns: list[tuple[int, PullEnd]] = field(default_factory=list)
    _lot: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def delivered(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._lot.unpark_all()

    def returned(self, count: int, why: PullEnd) -> None:
        self.returns.append((count, why))
        self._lot.unpark_all()

    async def wait(self, count: int) -> list[Delivery]:
        """Wait until so many messages have come."""
        with trio.fail_after(PATIENCE):
            while len(self.deliveries) < count:
                await self._lot.park()
        return self.deliveries

    async def wait_for_return(self) -> tuple[int, PullEnd]:
        """Wait until credits have come back; return the first ones."""
        with trio.fail_after(PATIENCE):
            while not self.returns:
                await self._lot.park()
        return self.returns[0]

    async def settle(self, credits_: int) -> None:
        """Wait until each of so many credits was used or has come back."""
        with trio.fail_after(PATIENCE):
            while len(self.deliveries) + sum(count for count, _ in self.returns) < credits_:
                await self._lot.park()


@dataclass
class Bench:
    """A broker, and a stream, a queue and a bucket of this test's own on its server."""

    broker: Broker
    kind: str
    token: str

    @property
    def stream(self) -> str:
        return f"S{self.token}"

    @property
    def queue(self) -> str:
        return f"Q{self.token}"

    @property
    def bucket(self) -> str:
        return f"b{self.token}"

    def subject(self, rest: str) -> str:
        return f"s{self.token}.{rest}"

    def task(self, rest: str) -> str:
        return f"q{self.token}.{rest}"

    @property
    def soon(self) -> float:
        """A deadline that only a failure reaches."""
        return trio.current_time() + PATIENCE

    async def set_up(self, window: float = 120.0) -> None:
        for name, prefix, retention in ((self.stream, "s", "limits"), (self.queue, "q", "queue")):
            spec = StreamSpec(
                name=name,
                subjects=(f"{prefix}{self.token}.>",),
                retention="limits" if retention == "limits" else "workqueue",
                duplicate_window_ns=round(window * NS),
            )
            await self.broker.ensure_stream(spec, deadline=self.soon)
        await self.broker.ensure_bucket(self.bucket, deadline=self.soon)

    async def store(self, subject: str, body: bytes = b"x", msg_id: str = "") -> int:
        stored = await self.broker.store(subject, body, msg_id=msg_id, deadline=self.soon)
        return stored.sequence

    async def consumer(
        self, name: str = "c", rest: str = ">", ack_wait: float = 30.0
    ) -> ConsumerState:
        return await self.broker.ensure_consumer(
            ConsumerSpec(
                stream=self.queue,
                durable=name,
                filter_subject=self.task(rest),
                ack_wait_ns=round(ack_wait * NS),
            ),
            deadline=self.soon,
        )

    async def queue_up(self, tasks: int) -> None:
        """Store so many tasks, and make the consumer that hands them out."""
        for _ in range(tasks):
            await self.store(self.task("a"))
        await self.consumer()

    async def pulled(self, name: str, *, waiting: bool = True) -> None:
        """Wait until the server holds a pull of a consumer, or none: it takes its own time."""
        with trio.fail_after(PATIENCE):
            while True:
                states = await self.broker.consumers(self.queue, deadline=self.soon)
                if any(state.name == name and bool(state.waiting) is waiting for state in states):
                    return
