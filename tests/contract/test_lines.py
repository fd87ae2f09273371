"""What cannot stand in a line of the protocol is refused before anything is sent, everywhere."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from contract_bench import PATIENCE, Bench, Sink

from trio_dagnats.errors import BrokerError, NotStored, UsageError
from trio_dagnats.transport.port import ConsumerSpec, Message, OnMessage, StreamSpec
from trio_dagnats.wire.events import Event

Ask = Callable[[Bench, str], Awaitable[object]]

INJECTION = "x 0\r\n\r\nPUB pwned 5\r\nhello\r\nPUB x"
UNSPEAKABLE = {
    "lines": INJECTION,
    "blank": "a b",
    "tab": "a\tb",
    "line-end": "a\n",
    "nul": "a\0b",
    "unicode-blank": "a\u2028b",
    "half-a-pair": "a\ud800b",
    "too-long": "a" * 5000,
}
UNWHOLE = {"dots": "a..b", "lead": ".a", "trail": "a.", "tail": "a.>.b"}
WILD = {"star": "*", "tail": ">", "one": "a.*", "all": "a.>", "dots": "a..b", "lead": ".a"}


def hear(_message: Message | None) -> None:
    """Take what nobody looks at."""


async def publish(bench: Bench, text: str) -> None:
    await bench.broker.publish(text, b"")


async def reply(bench: Bench, text: str) -> None:
    await bench.broker.publish("core.x", b"", reply=text)


async def request(bench: Bench, text: str) -> None:
    await bench.broker.request(text, b"", timeout=1)


async def store(bench: Bench, text: str) -> None:
    await bench.broker.store(bench.subject(text), b"", deadline=bench.soon)


async def post(bench: Bench, text: str) -> None:
    bench.broker.post(Event(bench.subject(text), "", {}, b""), deadline=bench.soon, done=print)


async def listen(bench: Bench, text: str) -> None:
    async with bench.broker.listen(text, hear):
        pass


async def queue(bench: Bench, text: str) -> None:
    async with bench.broker.listen("core.x", hear, queue=text):
        pass


async def records(bench: Bench, text: str) -> None:
    await bench.broker.records(bench.stream, bench.subject(text), deadline=bench.soon)


async def last_record(bench: Bench, text: str) -> None:
    await bench.broker.last_record(bench.stream, bench.subject(text), deadline=bench.soon)


async def consumer_filter(bench: Bench, text: str) -> None:
    await bench.consumer("c", rest=text)


async def kv_get(bench: Bench, text: str) -> None:
    await bench.broker.kv_get(bench.bucket, text, deadline=bench.soon)


async def kv_get_many(bench: Bench, text: str) -> None:
    await bench.broker.kv_get_many(bench.bucket, ["legal", text], deadline=bench.soon)


async def kv_put(bench: Bench, text: str) -> None:
    await bench.broker.kv_put(bench.bucket, text, b"", deadline=bench.soon)


async def kv_delete(bench: Bench, text: str) -> None:
    await bench.broker.kv_delete(bench.bucket, text, deadline=bench.soon)


async def kv_entries(bench: Bench, text: str) -> None:
    await bench.broker.kv_entries(bench.bucket, f"{text}.", deadline=bench.soon)


async def kv_entries_open(bench: Bench, text: str) -> None:
    await bench.broker.kv_entries(bench.bucket, text, deadline=bench.soon)


async def kv_clear(bench: Bench, text: str) -> None:
    await bench.broker.kv_clear(bench.bucket, f"{text}.", deadline=bench.soon)


async def bucket(bench: Bench, text: str) -> None:
    await bench.broker.kv_get(text, "a", deadline=bench.soon)


async def bucket_entries(bench: Bench, text: str) -> None:
    await bench.broker.kv_entries(text, deadline=bench.soon)


async def bucket_clear(bench: Bench, text: str) -> None:
    await bench.broker.kv_clear(text, "a.", deadline=bench.soon)


async def ensure_bucket(bench: Bench, text: str) -> None:
    await bench.broker.ensure_bucket(text, deadline=bench.soon)


async def ensure_stream(bench: Bench, text: str) -> None:
    spec = StreamSpec(name=text, subjects=(f"never{bench.token}",))
    await bench.broker.ensure_stream(spec, deadline=bench.soon)


async def has_stream(bench: Bench, text: str) -> None:
    await bench.broker.has_stream(text, deadline=bench.soon)


async def consumers(bench: Bench, text: str) -> None:
    await bench.broker.consumers(text, deadline=bench.soon)


async def consumer_stream(bench: Bench, text: str) -> None:
    spec = ConsumerSpec(stream=text, durable="c", filter_subject="a", ack_wait_ns=10**9)
    await bench.broker.ensure_consumer(spec, deadline=bench.soon)


async def consumer_name(bench: Bench, text: str) -> None:
    await bench.consumer(text)


async def delete_consumer(bench: Bench, text: str) -> None:
    await bench.broker.delete_consumer(bench.queue, text, deadline=bench.soon)


async def delete_of_stream(bench: Bench, text: str) -> None:
    await bench.broker.delete_consumer(text, "c", deadline=bench.soon)


async def intake_stream(bench: Bench, text: str) -> None:
    async with bench.broker.intake(text, "c", Sink()):
        pass


async def intake_durable(bench: Bench, text: str) -> None:
    async with bench.broker.intake(bench.queue, text, Sink()):
        pass


async def records_stream(bench: Bench, text: str) -> None:
    await bench.broker.records(text, "a", deadline=bench.soon)


async def last_of_stream(bench: Bench, text: str) -> None:
    await bench.broker.last_record(text, "a", deadline=bench.soon)


SUBJECTS = [publish, reply, request, store, post, queue]
FILTERS = [listen, records, consumer_filter]
KEYS = [last_record, kv_get, kv_get_many, kv_put, kv_delete, kv_entries, kv_entries_open, kv_clear]
NAMES = [bucket, bucket_entries, bucket_clear, ensure_bucket, ensure_stream, has_stream, consumers]
NAMES += [consumer_stream, consumer_name, delete_consumer, delete_of_stream]
NAMES += [intake_stream, intake_durable, records_stream, last_of_stream]


async def not_refused(bench: Bench, ask: Ask, texts: dict[str, str]) -> list[str]:
    """Return which of the texts can be asked with."""
    found: list[str] = []
    for name, text in texts.items():
        try:
            with trio.fail_after(PATIENCE):
                await ask(bench, text)
        except UsageError as error:
            if "legal" not in str(error) and "too long" not in str(error):
                found.append(f"{name}: {error}")
        except (BrokerError, ValueError, trio.TooSlowError) as error:
            found.append(f"{name}: {type(error).__name__}")
        else:
            found.append(f"{name}: sent")
    return found


@pytest.mark.parametrize("ask", [*SUBJECTS, *FILTERS, *KEYS, *NAMES])
async def test_what_cannot_be_said_is_refused_at_the_call(bench: Bench, ask: Ask) -> None:
    assert await not_refused(bench, ask, UNSPEAKABLE) == []


@pytest.mark.parametrize("ask", [*KEYS, *NAMES])
async def test_a_key_and_a_name_stand_for_themselves_alone(bench: Bench, ask: Ask) -> None:
    assert await not_refused(bench, ask, WILD) == []


@pytest.mark.parametrize("ask", FILTERS)
async def test_a_filter_is_whole(bench: Bench, ask: Ask) -> None:
    """A server ends the connection on which it is asked for another one."""
    assert await not_refused(bench, ask, UNWHOLE) == []


async def test_what_is_refused_costs_nothing(bench: Bench) -> None:
    """No message is sent, nobody waits, and the connection goes on."""
    heard: list[Message | None] = []
    listening: OnMessage = heard.append
    async with bench.broker.listen("pwned", listening), bench.broker.listen("core.>", listening):
        for ask in (publish, reply, request, store, post, listen, queue, kv_get, kv_put):
            with pytest.raises(UsageError):
                await ask(bench, INJECTION)
        sequence = await bench.store(bench.subject("a"))

    assert sequence == 1
    assert heard == []


@pytest.mark.parametrize("text", ["a\ud800", INJECTION, "a" * 5000])
async def test_nobody_is_told_later_of_what_was_refused(bench: Bench, text: str) -> None:
    """Its deadline passes, and wakes no task that waits for something else by then."""
    async with bench.broker.listen("silence", hear):
        with pytest.raises(UsageError):
            await bench.broker.request(text, b"", timeout=0.1)
        with pytest.raises(UsageError):
            await bench.broker.store(text, b"", deadline=trio.current_time() + 0.1)
        asked_at = trio.current_time()
        with pytest.raises(NotStored):
            await bench.broker.request("silence", b"", timeout=0.5)

    assert trio.current_time() - asked_at >= 0.5


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\n", "ä", "a\ud800"])
async def test_the_name_of_a_header_is_a_token(bench: Bench, name: str) -> None:
    with pytest.raises(UsageError, match="header name"):
        await bench.broker.publish("core.x", b"", headers={name: "v"})
    with pytest.raises(UsageError, match="header name"):
        await bench.broker.store(bench.subject("a"), b"", headers={name: "v"}, deadline=bench.soon)
    with pytest.raises(UsageError, match="header name"):
        bench.broker.post(Event(bench.subject("a"), "i", {name: "v"}, b""), deadline=0, done=print)


async def test_a_header_that_utf8_cannot_write_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="surrogate"):
        await bench.broker.publish("core.x", b"", headers={"h": "a\ud800"})


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\0b", "a\x1bb", "a\x85b"])
async def test_controls_in_a_header_become_blanks(bench: Bench, value: str) -> None:
    subject = bench.subject("a")
    await bench.broker.store(subject, b"", headers={"h": value}, deadline=bench.soon)

    record = await bench.broker.last_record(bench.stream, subject, deadline=bench.soon)

    assert record is not None
    assert dict(record.headers) == {"h": "".join(c if c.isprintable() else " " for c in value)}


@pytest.mark.parametrize("msg_id", ["a\r\nNats-Rollup: all", "a\n", "a\0", "a\ud800"])
async def test_a_message_id_is_refused_rather_than_changed(bench: Bench, msg_id: str) -> None:
    with pytest.raises(UsageError, match="message id"):
        await bench.store(bench.subject("a"), msg_id=msg_id)
    with pytest.raises(UsageError, match="message id"):
        bench.broker.post(
            Event(bench.subject("a"), msg_id, {}, b""), deadline=bench.soon, done=print
        )


@pytest.mark.parametrize(
    "token", ["größe", "日本", "a:b", "👩\u200d🔬", "🫨", "a=b/c_d-e", "a*b>c"]
)
async def test_what_is_only_unusual_is_sent(bench: Bench, token: str) -> None:
    subject = bench.subject(token)
    await bench.store(subject)

    async with bench.broker.listen(bench.subject(">"), hear):
        found = await bench.broker.records(bench.stream, bench.subject(">"), deadline=bench.soon)

    assert [record.subject for record in found] == [subject]
