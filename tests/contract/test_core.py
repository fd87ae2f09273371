"""Core messages and requests, on every broker."""

import pytest
import trio
from contract_bench import PATIENCE, Bench

from trio_dagnats.errors import Missing, NotStored, TooLarge
from trio_dagnats.transport.port import Message


class Heard:
    """Collects core messages, and lets a test wait for them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._lot = trio.lowlevel.ParkingLot()

    def __call__(self, message: Message | None) -> None:
        assert message is not None
        self.messages.append(message)
        self._lot.unpark_all()

    async def wait(self, count: int) -> list[Message]:
        with trio.fail_after(PATIENCE):
            while len(self.messages) < count:
                await self._lot.park()
        return self.messages


async def test_a_listener_hears_what_is_published_after_it_began(bench: Bench) -> None:
    heard = Heard()
    async with bench.broker.listen(f"core.{bench.token}.*", heard):
        await bench.broker.publish(
            f"core.{bench.token}.a", b"hi", headers={"h": "v"}, reply="answer.here"
        )
        (message,) = await heard.wait(1)

    assert (message.subject, message.body) == (f"core.{bench.token}.a", b"hi")
    assert message.reply == "answer.here"
    assert message.headers["h"] == "v"


async def test_messages_come_in_order(bench: Bench) -> None:
    heard = Heard()
    async with bench.broker.listen(f"core.{bench.token}", heard):
        for number in range(100):
            await bench.broker.publish(f"core.{bench.token}", b"%d" % number)
        found = await heard.wait(100)

    assert [int(message.body) for message in found] == list(range(100))


async def test_a_stored_message_reaches_listeners_too(bench: Bench) -> None:
    heard = Heard()
    async with bench.broker.listen(bench.subject("a"), heard):
        await bench.store(bench.subject("a"), b"both", msg_id="i")
        (message,) = await heard.wait(1)

    assert message.body == b"both"
    assert message.headers["Nats-Msg-Id"] == "i"


async def test_a_bucket_write_reaches_listeners(bench: Bench) -> None:
    heard = Heard()
    async with bench.broker.listen(f"$KV.{bench.bucket}.a.b", heard):
        await bench.broker.kv_put(bench.bucket, "a.b", b"v", deadline=bench.soon)
        (message,) = await heard.wait(1)

    assert message.body == b"v"


async def test_one_listener_of_a_queue_group_hears_each_message(bench: Bench) -> None:
    one, two, all_ = Heard(), Heard(), Heard()
    subject = f"core.{bench.token}"
    async with (
        bench.broker.listen(subject, one, queue="g"),
        bench.broker.listen(subject, two, queue="g"),
        bench.broker.listen(subject, all_),
    ):
        for _ in range(20):
            await bench.broker.publish(subject, b"x")
        await all_.wait(20)

    assert len(one.messages) + len(two.messages) == 20


async def test_a_request_gets_the_answer(bench: Bench) -> None:
    subject = f"core.{bench.token}"
    async with trio.open_nursery() as nursery:

        def answer(message: Message | None) -> None:
            assert message is not None
            nursery.start_soon(bench.broker.publish, message.reply, b"re: " + message.body)

        async with bench.broker.listen(subject, answer):
            reply = await bench.broker.request(subject, b"q", timeout=PATIENCE)

    assert reply.body == b"re: q"


async def test_a_request_that_nobody_serves_is_missing(bench: Bench) -> None:
    with pytest.raises(Missing, match=f"core.{bench.token}"):
        await bench.broker.request(f"core.{bench.token}", b"q", timeout=PATIENCE)


async def test_a_request_that_is_not_answered_ends(bench: Bench) -> None:
    async with bench.broker.listen(f"core.{bench.token}", Heard()):
        with pytest.raises(NotStored, match=f"core.{bench.token}"):
            await bench.broker.request(f"core.{bench.token}", b"q", timeout=0.05)


async def test_a_cancelled_request_leaves_the_connection_usable(bench: Bench) -> None:
    async with bench.broker.listen(f"core.{bench.token}", Heard()):
        with trio.move_on_after(0.01) as scope:
            await bench.broker.request(f"core.{bench.token}", b"q", timeout=PATIENCE)

    assert scope.cancelled_caught
    await bench.store(bench.subject("a"))


async def test_a_core_message_that_is_too_large_is_refused(bench: Bench) -> None:
    with pytest.raises(TooLarge):
        await bench.broker.publish("core.x", bytes(bench.broker.max_payload + 1))


async def test_a_listener_that_raises_hears_the_next_message(bench: Bench) -> None:
    """Its own defect: nobody is deaf of it, neither itself nor its neighbours."""
    heard = Heard()

    def choke(message: Message | None) -> None:
        heard(message)
        raise RuntimeError

    async with bench.broker.listen(f"core.{bench.token}", choke):
        await bench.broker.publish(f"core.{bench.token}", b"1")
        await bench.broker.publish(f"core.{bench.token}", b"2")
        await heard.wait(2)
        await bench.store(bench.subject("a"))
