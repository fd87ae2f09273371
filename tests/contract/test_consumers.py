"""Durable consumers and their deliveries, on every broker."""

import pytest
import trio
from contract_bench import NS, PATIENCE, Bench, Sink

from trio_dagnats.errors import Conflict, Missing
from trio_dagnats.transport.port import ConsumerSpec, Delivery, PullEnd
from trio_dagnats.wire.names import consumer_deleted


async def state(bench: Bench, name: str = "c") -> tuple[int, int]:
    """Return what is pending, and what is delivered and not acknowledged."""
    for consumer in await bench.broker.consumers(bench.queue, deadline=bench.soon):
        if consumer.durable == name:
            return consumer.pending, consumer.ack_pending
    raise AssertionError(name)


async def wait_for_state(bench: Bench, pending: int, held: int) -> None:
    """Wait until the server has taken the answers in; it tells nobody when."""
    with trio.fail_after(PATIENCE):
        while await state(bench) != (pending, held):
            await trio.lowlevel.checkpoint()


async def test_a_pull_gets_what_was_stored_before(bench: Bench, sink: Sink) -> None:
    sequence = await bench.store(bench.task("t.r"), b"body")
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(1, 5.0)
        (delivery,) = await sink.wait(1)

        assert (delivery.subject, delivery.body) == (bench.task("t.r"), b"body")
        assert (delivery.stream_sequence, delivery.deliveries) == (sequence, 1)
        assert abs(delivery.published_ns - bench.broker.time_ns()) < 60 * NS
        delivery.ack()


async def test_a_pull_gets_what_is_stored_later(bench: Bench, sink: Sink) -> None:
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(2, 5.0)
        await bench.store(bench.task("a"), b"1")
        await bench.store(bench.task("b"), b"2")
        found = await sink.wait(2)

        assert [delivery.body for delivery in found] == [b"1", b"2"]
        for delivery in found:
            delivery.ack()


async def test_no_more_come_than_were_asked_for(bench: Bench, sink: Sink) -> None:
    await bench.queue_up(5)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(2, 5.0)
        await sink.wait(2)
        assert await state(bench) == (3, 2)
        intake.pull(3, 5.0)
        await sink.wait(5)


async def test_an_acknowledged_message_leaves_the_queue(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"))
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(1, 5.0)
        (delivery,) = await sink.wait(1)
        delivery.ack()
        await wait_for_state(bench, 0, 0)

    assert await bench.broker.last_record(bench.queue, bench.task("a"), deadline=bench.soon) is None


async def test_a_message_handed_back_comes_again(bench: Bench, sink: Sink) -> None:
    sequence = await bench.store(bench.task("a"))
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(2, 5.0)
        (first,) = await sink.wait(1)
        first.nak()
        second = (await sink.wait(2))[1]

        assert (second.stream_sequence, second.deliveries) == (sequence, 2)
        second.ack()


async def test_a_delayed_message_comes_after_the_others(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"), b"1")
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(3, 10.0)
        (first,) = await sink.wait(1)
        begun = trio.current_time()
        first.nak(0.2)
        await bench.store(bench.task("a"), b"2")
        found = await sink.wait(3)

        assert [delivery.body for delivery in found] == [b"1", b"2", b"1"]
        assert trio.current_time() - begun >= 0.19


async def test_a_terminated_message_never_comes_again(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"))
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(1, 5.0)
        (delivery,) = await sink.wait(1)
        delivery.term()
        await wait_for_state(bench, 0, 0)


async def test_a_lapsed_lease_delivers_again(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"))
    await bench.consumer(ack_wait=0.3)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(2, 10.0)
        found = await sink.wait(2)

        assert [delivery.deliveries for delivery in found] == [1, 2]


async def test_a_renewed_lease_does_not_lapse(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"))
    await bench.consumer(ack_wait=1.0)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(1, 30.0)
        (delivery,) = await sink.wait(1)
        intake.pull(1, 2.0)
        before = trio.current_time()
        for _ in range(4):
            with trio.move_on_after(0.4):
                await sink.wait(2)
            assert before <= await delivery.renew(deadline=bench.soon) <= trio.current_time()
        assert len(sink.deliveries) == 1
        delivery.ack()


async def test_the_second_answer_to_a_delivery_is_ignored(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"))
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(2, 5.0)
        (delivery,) = await sink.wait(1)
        delivery.ack()
        delivery.nak()
        await wait_for_state(bench, 0, 0)


async def test_an_answer_whose_time_is_over_is_not_sent(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"))
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(1, 5.0)
        (delivery,) = await sink.wait(1)
        delivery.ack(not_after=trio.current_time() - 1)
        await bench.store(bench.subject("fence"))

        assert await state(bench) == (0, 1)


async def test_a_forgotten_delivery_is_never_answered(bench: Bench, sink: Sink) -> None:
    await bench.store(bench.task("a"))
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(1, 5.0)
        (delivery,) = await sink.wait(1)
        delivery.forget()
        delivery.ack()
        await bench.store(bench.subject("fence"))

        assert await state(bench) == (0, 1)


async def test_a_pull_without_messages_gives_its_credits_back(bench: Bench, sink: Sink) -> None:
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(3, 0.2)

        assert await sink.wait_for_return() == (3, PullEnd.EXPIRED)


async def test_a_pull_for_what_is_there_ends_with_it(bench: Bench, sink: Sink) -> None:
    """Its credits come back at once, long before the pull's time is over."""
    await bench.queue_up(3)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(5, 60.0, once=True)

        assert await sink.wait_for_return() == (2, PullEnd.EXPIRED)
        assert len(sink.deliveries) == 3


async def test_a_pull_for_what_is_there_that_gets_all_ends_too(bench: Bench, sink: Sink) -> None:
    await bench.queue_up(4)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(3, 60.0, once=True)
        await sink.wait(3)
        intake.pull(3, 60.0, once=True)

        assert await sink.wait_for_return() == (2, PullEnd.EXPIRED)
        assert len(sink.deliveries) == 4


async def test_a_pull_for_what_is_there_ends_in_time_if_nothing_is(
    bench: Bench, sink: Sink
) -> None:
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(3, 0.2, once=True)

        assert await sink.wait_for_return() == (3, PullEnd.EXPIRED)


async def test_two_workers_pull_for_what_is_there(bench: Bench) -> None:
    """What one of them took meanwhile keeps the other waiting no longer than it asked for."""
    one, two = Sink(), Sink()
    await bench.queue_up(4)
    async with (
        bench.broker.intake(bench.queue, "c", one) as first,
        bench.broker.intake(bench.queue, "c", two) as second,
    ):
        first.pull(3, 0.5, once=True)
        second.pull(3, 0.5, once=True)
        await one.settle(3)
        await two.settle(3)

    assert len(one.deliveries) + len(two.deliveries) == 4


async def test_an_intake_says_how_many_messages_were_left(bench: Bench, sink: Sink) -> None:
    await bench.queue_up(3)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        assert intake.left_behind() == 0
        intake.pull(1, 5.0)
        await sink.wait(1)
        assert intake.left_behind() == 2
        intake.pull(2, 5.0)
        await sink.wait(3)
        assert intake.left_behind() == 0


async def test_a_deleted_consumer_gives_the_credits_back(bench: Bench, sink: Sink) -> None:
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(2, 30.0)
        await bench.pulled("c")
        await bench.broker.delete_consumer(bench.queue, "c", deadline=bench.soon)

        assert await sink.wait_for_return() == (2, PullEnd.CONSUMER_GONE)


async def test_leaving_an_intake_loses_no_message(bench: Bench, sink: Sink) -> None:
    """Transport notes: nats-py's unsubscribe lost 30 of 240, each for a whole ack_wait."""
    for number in range(100):
        await bench.store(bench.task("a"), b"%d" % number)
    await bench.consumer()
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(80, 30.0)
        await sink.wait(1)
    early = sink.deliveries
    for delivery in early:
        delivery.ack()

    rest = Sink()
    async with bench.broker.intake(bench.queue, "c", rest) as intake:
        intake.pull(100, 30.0)
        await rest.wait(100 - len(early))

    bodies = {int(d.body) for d in early} | {int(d.body) for d in rest.deliveries}
    assert bodies == set(range(100))


async def test_two_intakes_share_a_queue(bench: Bench) -> None:
    one, two = Sink(), Sink()
    await bench.consumer()
    async with (
        bench.broker.intake(bench.queue, "c", one) as first,
        bench.broker.intake(bench.queue, "c", two) as second,
    ):
        first.pull(5, 10.0)
        second.pull(5, 10.0)
        for number in range(10):
            await bench.store(bench.task("a"), b"%d" % number)
        await one.wait(5)
        await two.wait(5)

    bodies = {int(delivery.body) for delivery in one.deliveries + two.deliveries}
    assert bodies == set(range(10))


async def test_a_consumer_is_reported_as_it_was_made(bench: Bench) -> None:
    made = await bench.consumer(rest="t.>", ack_wait=12.0)

    (found,) = await bench.broker.consumers(bench.queue, deadline=bench.soon)

    assert found.durable == made.durable == "c"
    assert found.filter_subject == bench.task("t.>")
    assert found.ack_wait_ns == 12 * NS
    assert found.max_ack_pending == 1000


async def test_making_a_consumer_again_changes_it(bench: Bench) -> None:
    await bench.consumer(ack_wait=12.0)
    changed = await bench.broker.ensure_consumer(
        ConsumerSpec(
            stream=bench.queue,
            durable="c",
            filter_subject=bench.task(">"),
            ack_wait_ns=20 * NS,
            max_ack_pending=100_000,
        ),
        deadline=bench.soon,
    )

    assert (changed.ack_wait_ns, changed.max_ack_pending) == (20 * NS, 100_000)


async def test_overlapping_filters_on_a_work_queue_conflict(bench: Bench) -> None:
    await bench.consumer("one", "t.>")

    with pytest.raises(Conflict):
        await bench.consumer("two", "t.u.>")


async def test_a_consumer_of_no_stream_is_missing(bench: Bench) -> None:
    spec = ConsumerSpec(stream="NONE", durable="c", filter_subject="x", ack_wait_ns=NS)

    with pytest.raises(Missing):
        await bench.broker.ensure_consumer(spec, deadline=bench.soon)


async def test_deleting_an_absent_consumer_is_no_error(bench: Bench) -> None:
    await bench.broker.delete_consumer(bench.queue, "none", deadline=bench.soon)


async def test_all_consumers_are_listed(bench: Bench) -> None:
    for number in range(5):
        await bench.consumer(f"c{number}", f"t{number}.>")

    found = await bench.broker.consumers(bench.queue, deadline=bench.soon)

    assert {consumer.durable for consumer in found} == {f"c{number}" for number in range(5)}


async def test_a_consumer_of_a_stream_with_limits_sees_all_in_order(
    bench: Bench, sink: Sink
) -> None:
    for number in range(5):
        await bench.store(bench.subject("a"), b"%d" % number)
    await bench.broker.ensure_consumer(
        ConsumerSpec(
            stream=bench.stream,
            durable="all",
            filter_subject=bench.subject(">"),
            ack_wait_ns=30 * NS,
        ),
        deadline=bench.soon,
    )
    async with bench.broker.intake(bench.stream, "all", sink) as intake:
        intake.pull(5, 10.0)
        found = await sink.wait(5)
        for delivery in found:
            delivery.ack()

    assert [int(delivery.body) for delivery in found] == list(range(5))
    kept = await bench.broker.records(bench.stream, bench.subject(">"), deadline=bench.soon)
    assert len(kept) == 5


async def test_a_message_that_its_sink_chokes_on_comes_again_after_its_lease(
    bench: Bench, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its credit is used, and those after it arrive."""
    take = sink.delivered

    def choke(delivery: Delivery) -> None:
        take(delivery)
        if delivery.body == b"odd" and delivery.deliveries == 1:
            raise RuntimeError
        delivery.ack()

    monkeypatch.setattr(sink, "delivered", choke)
    await bench.store(bench.task("a"), b"odd")
    await bench.store(bench.task("a"), b"next")
    await bench.consumer(ack_wait=0.3)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(3, 30.0)
        found = await sink.wait(3)

    assert [delivery.body for delivery in found] == [b"odd", b"next", b"odd"]


async def test_a_durable_and_a_stream_say_when_they_were_made(bench: Bench) -> None:
    """By the clock that stamps messages: what was stored before is older, what comes is not."""
    await bench.store(bench.task("a"))
    before = await bench.broker.last_record(bench.queue, bench.task("a"), deadline=bench.soon)
    first = await bench.consumer()
    await bench.broker.delete_consumer(bench.queue, "c", deadline=bench.soon)
    second = await bench.consumer()
    await bench.store(bench.task("a"))
    after = await bench.broker.last_record(bench.queue, bench.task("a"), deadline=bench.soon)
    again = await bench.consumer()
    stream = await bench.broker.stream_made_ns(bench.queue, deadline=bench.soon)

    assert before is not None
    assert after is not None
    assert stream <= before.time_ns <= first.made_ns <= second.made_ns <= after.time_ns
    assert again.made_ns == second.made_ns
    with pytest.raises(Missing):
        await bench.broker.stream_made_ns("NONE", deadline=bench.soon)


async def test_a_deletion_is_told(bench: Bench) -> None:
    told = trio.Event()
    await bench.consumer()
    async with bench.broker.listen(consumer_deleted(bench.queue, "*"), lambda _: told.set()):
        await bench.broker.delete_consumer(bench.queue, "c", deadline=bench.soon)
        with trio.fail_after(PATIENCE):
            await told.wait()


async def test_what_was_forgotten_is_not_renewed(bench: Bench, sink: Sink) -> None:
    """Its sequence may be another message's now; nobody else gets it."""
    await bench.store(bench.task("a"))
    await bench.consumer(ack_wait=0.5)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(2, 30.0)
        (delivery,) = await sink.wait(1)
        delivery.forget()

        with trio.move_on_after(10.0):
            while len(sink.deliveries) < 2:
                await delivery.renew(deadline=bench.soon)

        assert len(sink.deliveries) == 2


@pytest.mark.parametrize(("batch", "seconds"), [(3, 1.0), (2, 2.0)])
async def test_a_pull_beyond_its_consumers_limits_is_refused(
    bench: Bench, sink: Sink, batch: int, seconds: float
) -> None:
    await bench.queue_up(3)
    spec = ConsumerSpec(
        stream=bench.queue,
        durable="c",
        filter_subject=bench.task(">"),
        ack_wait_ns=30 * NS,
        max_batch=2,
        max_expires_ns=NS,
    )
    made = await bench.broker.ensure_consumer(spec, deadline=bench.soon)
    async with bench.broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(batch, seconds)
        assert await sink.wait_for_return() == (batch, PullEnd.REFUSED)
        assert not sink.deliveries

        intake.pull(made.max_batch, made.max_expires_ns / NS)
        await sink.wait(2)
