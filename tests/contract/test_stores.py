"""Storing and reading messages, on every broker."""

from functools import partial

import pytest
import trio
from contract_bench import PATIENCE, Bench

from trio_dagnats.errors import BrokerError, Conflict, Missing, NotStored, TooLarge
from trio_dagnats.transport.port import Stored
from trio_dagnats.wire.events import Event


async def test_a_stored_message_is_read_back_as_it_was(bench: Bench) -> None:
    sequence = (
        await bench.broker.store(
            bench.subject("a"), b"body", headers={"trace": "t"}, deadline=bench.soon
        )
    ).sequence

    (record,) = await bench.broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)

    assert (record.sequence, record.subject, record.body) == (
        sequence,
        bench.subject("a"),
        b"body",
    )
    assert record.headers["trace"] == "t"


async def test_sequences_count_up(bench: Bench) -> None:
    first = await bench.store(bench.subject("a"))
    second = await bench.store(bench.subject("b"))

    assert second == first + 1


async def test_a_second_message_of_one_id_is_a_duplicate(bench: Bench) -> None:
    first = await bench.broker.store(bench.subject("a"), b"1", msg_id="i", deadline=bench.soon)
    second = await bench.broker.store(bench.subject("a"), b"2", msg_id="i", deadline=bench.soon)

    assert not first.duplicate
    assert second.duplicate
    assert second.sequence == first.sequence


async def test_a_condition_that_holds_stores(bench: Bench) -> None:
    last = await bench.store(bench.subject("a"))

    stored = await bench.broker.store(
        bench.subject("a"), b"x", expect_last=last, deadline=bench.soon
    )

    assert stored.sequence == last + 1


async def test_a_condition_that_does_not_hold_is_a_conflict(bench: Bench) -> None:
    last = await bench.store(bench.subject("a"))
    await bench.store(bench.subject("a"))

    with pytest.raises(Conflict):
        await bench.broker.store(bench.subject("a"), b"x", expect_last=last, deadline=bench.soon)


async def test_a_condition_is_checked_before_the_id(bench: Bench) -> None:
    """Contract 14: sent again with both, a stored message gets a conflict."""
    await bench.store(bench.subject("a"), msg_id="i")

    with pytest.raises(Conflict):
        await bench.broker.store(
            bench.subject("a"), b"x", msg_id="i", expect_last=0, deadline=bench.soon
        )


async def test_a_condition_for_sends_again_does_not_bind_the_first_send(bench: Bench) -> None:
    await bench.store(bench.subject("a"))

    stored = await bench.broker.store(
        bench.subject("a"), b"x", resend_expect=0, deadline=bench.soon
    )

    assert not stored.resent


async def test_a_subject_that_no_stream_takes_is_missing(bench: Bench) -> None:
    with pytest.raises(Missing, match="no stream"):
        await bench.broker.store(f"nowhere.{bench.token}", b"x", deadline=bench.soon)


async def test_too_many_bytes_are_refused_and_the_connection_lives(bench: Bench) -> None:
    with pytest.raises(TooLarge, match="max_payload"):
        await bench.broker.store(
            bench.subject("a"), bytes(bench.broker.max_payload + 1), deadline=bench.soon
        )

    await bench.store(bench.subject("a"))


async def test_the_most_bytes_are_stored(bench: Bench) -> None:
    body = bytes(bench.broker.max_payload)

    await bench.store(bench.subject("a"), body)

    (record,) = await bench.broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)
    assert record.body == body


async def test_many_at_once_are_all_stored(bench: Bench) -> None:
    async def store(number: int) -> None:
        await bench.store(bench.subject("a"), b"%d" % number, msg_id=f"n{number}")

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(store, number)

    found = await bench.broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)
    assert {int(record.body) for record in found} == set(range(300))


async def test_records_come_oldest_first_after_a_sequence(bench: Bench) -> None:
    sequences = [await bench.store(bench.subject("a")) for _ in range(4)]

    found = await bench.broker.records(
        bench.stream, bench.subject("a"), after=sequences[1], deadline=bench.soon
    )

    assert [record.sequence for record in found] == sequences[2:]


async def test_records_begin_at_a_time(bench: Bench) -> None:
    await bench.store(bench.subject("a"))
    (first,) = await bench.broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)

    at = await bench.broker.records(
        bench.stream, bench.subject("a"), since_ns=first.time_ns, deadline=bench.soon
    )
    later = await bench.broker.records(
        bench.stream, bench.subject("a"), since_ns=first.time_ns + 1, deadline=bench.soon
    )

    assert (len(at), len(later)) == (1, 0)


async def test_records_of_a_filter_leave_others_out(bench: Bench) -> None:
    await bench.store(bench.subject("a.x"), b"1")
    await bench.store(bench.subject("b.x"), b"2")
    await bench.store(bench.subject("a.y"), b"3")

    found = await bench.broker.records(bench.stream, bench.subject("a.>"), deadline=bench.soon)

    assert [record.body for record in found] == [b"1", b"3"]


async def test_no_records_are_an_empty_list(bench: Bench) -> None:
    assert not await bench.broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)


async def test_records_of_no_stream_are_missing(bench: Bench) -> None:
    with pytest.raises(Missing):
        await bench.broker.records("NONE", bench.subject("a"), deadline=bench.soon)


async def test_the_last_record_is_the_newest(bench: Bench) -> None:
    await bench.store(bench.subject("a"), b"old")
    await bench.store(bench.subject("a"), b"new")

    last = await bench.broker.last_record(bench.stream, bench.subject("a"), deadline=bench.soon)

    assert last is not None
    assert last.body == b"new"


async def test_a_subject_without_messages_has_no_last_record(bench: Bench) -> None:
    assert (
        await bench.broker.last_record(bench.stream, bench.subject("a"), deadline=bench.soon)
        is None
    )


async def test_streams_that_exist_are_known(bench: Bench) -> None:
    assert await bench.broker.has_stream(bench.stream, deadline=bench.soon)
    assert not await bench.broker.has_stream("NONE", deadline=bench.soon)


class Told:
    """Collects what posts became, and lets a test wait for it."""

    def __init__(self) -> None:
        self.results: list[Stored | BrokerError] = []
        self._lot = trio.lowlevel.ParkingLot()

    def __call__(self, result: Stored | BrokerError) -> None:
        self.results.append(result)
        self._lot.unpark_all()

    async def wait(self, count: int = 1) -> list[Stored | BrokerError]:
        with trio.fail_after(PATIENCE):
            while len(self.results) < count:
                await self._lot.park()
        return self.results


async def test_a_post_is_stored_and_told_with_its_sequence(bench: Bench) -> None:
    told = Told()

    bench.broker.post(Event(bench.subject("a"), "i", {}, b"1"), deadline=bench.soon, done=told)

    (result,) = await told.wait()
    last = await bench.broker.last_record(bench.stream, bench.subject("a"), deadline=bench.soon)
    assert isinstance(result, Stored)
    assert last is not None
    assert (last.sequence, last.body, last.headers["Nats-Msg-Id"]) == (result.sequence, b"1", "i")


async def test_nobody_is_told_of_a_post_before_the_call_has_returned(bench: Bench) -> None:
    told = Told()

    bench.broker.post(Event(bench.subject("a"), "i", {}, b"1"), deadline=bench.soon, done=told)

    assert not told.results
    await told.wait()


async def test_posts_keep_their_order(bench: Bench) -> None:
    told = Told()
    for number in range(3):
        bench.broker.post(
            Event(bench.subject("a"), f"{number}", {}, b"x"), deadline=bench.soon, done=told
        )

    results = await told.wait(3)
    records = await bench.broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)

    assert [r.sequence for r in results if isinstance(r, Stored)] == [r.sequence for r in records]
    assert [r.headers["Nats-Msg-Id"] for r in records] == ["0", "1", "2"]


async def test_a_second_post_of_one_id_is_told_as_a_duplicate(bench: Bench) -> None:
    told = Told()
    first = await bench.broker.store(bench.subject("a"), b"1", msg_id="i", deadline=bench.soon)

    bench.broker.post(Event(bench.subject("a"), "i", {}, b"2"), deadline=bench.soon, done=told)

    (result,) = await told.wait()
    assert result == Stored(sequence=first.sequence, duplicate=True)


async def test_a_post_that_no_stream_takes_is_told_as_a_refusal(bench: Bench) -> None:
    told = Told()

    bench.broker.post(Event("nowhere.at.all", "i", {}, b"1"), deadline=bench.soon, done=told)

    (result,) = await told.wait()
    assert isinstance(result, Missing)


async def test_a_post_that_is_too_large_is_not_taken(bench: Bench) -> None:
    body = b"x" * (bench.broker.max_payload + 1)

    posted = bench.broker.post(
        Event(bench.subject("a"), "i", {}, body), deadline=bench.soon, done=Told()
    )

    assert posted is None


async def test_an_abandoned_post_is_told_to_nobody(bench: Bench) -> None:
    told, other = Told(), Told()
    posted = bench.broker.post(
        Event(bench.subject("a"), "i", {}, b"1"), deadline=bench.soon, done=told
    )
    assert posted is not None

    posted.abandon()
    bench.broker.post(Event(bench.subject("a"), "j", {}, b"2"), deadline=bench.soon, done=other)

    await other.wait()
    assert not told.results


async def test_a_post_whose_deadline_is_moved_into_the_past_is_told_as_not_stored(
    bench: Bench,
) -> None:
    told = Told()
    posted = bench.broker.post(
        Event(bench.subject("a"), "i", {}, b"1"), deadline=bench.soon, done=told
    )
    assert posted is not None

    posted.deadline = trio.current_time() - 1

    (result,) = await told.wait()
    # A server that is quick enough may have acknowledged it before anybody looked at the clock.
    assert isinstance(result, NotStored | Stored)


async def test_a_long_history_is_read_in_its_order(bench: Bench) -> None:
    """More than the real server is asked for at once."""
    subject, body = bench.subject("long"), b"x" * 10_000
    async with trio.open_nursery() as nursery:
        for _ in range(1500):
            store = partial(bench.broker.store, deadline=bench.soon)
            nursery.start_soon(store, subject, body)

    records = await bench.broker.records(bench.stream, subject, deadline=bench.soon)

    sequences = [record.sequence for record in records]
    assert len(sequences) == 1500
    assert sequences == sorted(sequences)


async def test_who_raises_over_a_post_hears_of_the_next_one(bench: Bench) -> None:
    told = Told()

    def choke(result: Stored | BrokerError) -> None:
        told(result)
        raise RuntimeError

    for name in ("i", "i", "j"):  # the second one is told as a duplicate
        bench.broker.post(
            Event(bench.subject("a"), name, {}, b"1"), deadline=bench.soon, done=choke
        )
    bench.broker.post(Event("nowhere.at.all", "k", {}, b"1"), deadline=bench.soon, done=choke)

    assert len(await told.wait(4)) == 4
    await bench.store(bench.subject("a"))
