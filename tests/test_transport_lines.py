"""The one place through which frames go, and whoever wants an answer where none can go."""

from collections.abc import Sequence

import pytest
import trio
from contract_bench import PATIENCE

from trio_dagnats.errors import UsageError
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.nats.frames import Frame, Line, decode_ack, encode
from trio_dagnats.transport.nats.outbox import Outbox
from trio_dagnats.transport.port import Message

BAD = ["", " ", "a b", "a\tb", "a\r\nPUB b 0\r\n", "a\n", "a\0", "a\x7f", "a\x85"]
BAD += ["a\u2028", "a\ud800", "a" * 3901, "ä" * 2000]
ADDRESSES = [*((bad, "") for bad in BAD), *(("a", bad) for bad in BAD[1:])]
ACK = "$JS.ACK.s.c.1.2.3.4.5"


class Writer:
    """A connection that keeps what is written."""

    writable = True
    unsent = 0

    def __init__(self) -> None:
        self.written: list[Frame] = []

    async def write(self, frames: Sequence[Frame]) -> None:
        self.written += frames

    def write_at_once(self, frame: Frame) -> bool:
        self.written.append(frame)
        return True


@pytest.mark.parametrize("active", [0, 1000])
@pytest.mark.parametrize(("subject", "reply"), ADDRESSES)
async def test_no_frame_gets_into_the_outbox_that_breaks_its_line(
    subject: str, reply: str, active: int
) -> None:
    writer = Writer()
    outbox = Outbox(writer, lambda: active)

    with pytest.raises(UsageError, match="subject"):
        outbox.put(Frame(subject, b"body", reply))

    assert len(outbox) == 0
    assert writer.written == []


async def test_a_line_of_our_own_is_written_as_it_is() -> None:
    writer = Writer()

    Outbox(writer, lambda: 0).put(Line(b"SUB a 1\r\n"))

    assert encode(writer.written) == [b"SUB a 1\r\n"]


@pytest.mark.parametrize("subject", ["a", "ä.ö", "a*b", "👩\u200d🔬", "a" * 3900])
async def test_what_is_only_unusual_is_written(subject: str) -> None:
    writer = Writer()

    Outbox(writer, lambda: 0).put(Frame(subject, b""))

    assert encode(writer.written) == [f"PUB {subject} 0\r\n\r\n".encode()]


@pytest.mark.parametrize("reply", [f"{ACK}\x01", f"{ACK}\x7f", f"{ACK}{'0' * 4000}"])
def test_a_delivery_that_could_not_be_answered_is_none(reply: str) -> None:
    assert decode_ack(ACK) == (1, 2, 4)
    with pytest.raises(ValueError, match="no ack subject"):
        decode_ack(reply)


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("reply", [b"a\x01b", b"a\x7fb", b"a" * 3950])
async def test_who_wants_the_answer_nowhere_gets_none(nats_server: Server, reply: bytes) -> None:
    """Else whoever answers, such as a worker to those who look at it, would fail over it."""
    heard: list[Message] = []
    came = trio.Event()

    def hear(message: Message | None) -> None:
        assert message is not None
        heard.append(message)
        came.set()

    line = b'CONNECT {"verbose":false}\r\nPUB lines.x %b 2\r\nhi\r\n' % reply
    async with (
        open_broker(nats_server.url) as broker,
        broker.listen("lines.x", hear),
        await trio.open_tcp_stream("127.0.0.1", nats_server.port) as raw,
    ):
        await raw.send_all(line)
        with trio.fail_after(PATIENCE):
            await came.wait()

    assert [(message.body, message.reply) for message in heard] == [(b"hi", "")]
