"""Messages are taken whole from what the socket brings, however it is cut."""

import pytest

from trio_dagnats.errors import WireError
from trio_dagnats.transport.nats.frames import LARGE, Frame, Incoming, encode
from trio_dagnats.transport.nats.parsing import acknowledgements, take_messages
from trio_dagnats.transport.nats.subscriptions import FIRST_SID, Acks, Subscriptions
from trio_dagnats.transport.nats_py.private import HookedClient

SID = b"%d" % FIRST_SID
HEAD = b"NATS/1.0 503 Nobody\r\nA: b\r\n\r\n"
OURS = [
    (b"MSG a.b %b 2\r\nhi\r\n" % SID, Incoming("a.b", "", b"hi")),
    (b"MSG a %b in.box 0\r\n\r\n" % SID, Incoming("a", "in.box", b"")),
    (b"MSG a %b 4\r\n\r\n\r\n\r\n" % SID, Incoming("a", "", b"\r\n\r\n")),
    (
        b"HMSG a %b r %d %d\r\n%bxy\r\n" % (SID, len(HEAD), len(HEAD) + 2, HEAD),
        Incoming("a", "r", b"xy", "503", "Nobody", {"A": "b"}),
    ),
    (
        b"HMSG a %b %d %d\r\n%b\r\n" % (SID, len(HEAD), len(HEAD), HEAD),
        Incoming("a", "", b"", "503", "Nobody", {"A": "b"}),
    ),
]
STREAM = b"".join(raw for raw, _ in OURS)
MESSAGES = [message for _, message in OURS]


def listening() -> tuple[Subscriptions, list[Incoming]]:
    """Make subscriptions with one subscription, and the list of what it gets."""
    subscriptions, got = Subscriptions(), list[Incoming]()
    subscriptions.add("a.>", got.append)
    return subscriptions, got


def test_whole_messages_are_delivered_in_their_order() -> None:
    subscriptions, got = listening()

    assert take_messages(STREAM, subscriptions) == (len(STREAM), 0)
    assert got == MESSAGES


def test_what_is_missing_of_a_message_is_told() -> None:
    subscriptions, got = listening()

    assert take_messages(STREAM + b"MSG a %b 10\r\nabc" % SID, subscriptions) == (len(STREAM), 9)
    assert got == MESSAGES


@pytest.mark.parametrize(
    "foreign",
    [b"PING\r\n", b"+OK\r\n", b"MSG a 7 2\r\nhi\r\n", b"MSG a 1", b"MSG a\r\n", b"HMSG a %b 1\r\n"],
)
def test_anything_else_is_left_to_nats_py(foreign: bytes) -> None:
    subscriptions, got = listening()

    assert take_messages(STREAM + foreign, subscriptions) == (len(STREAM), 0)
    assert got == MESSAGES


def test_a_message_of_an_ended_subscription_is_dropped() -> None:
    subscriptions, got = listening()
    stale = b"MSG a %d 2\r\nhi\r\n" % (FIRST_SID + 1)

    assert take_messages(stale + STREAM, subscriptions) == (len(stale + STREAM), 0)
    assert got == MESSAGES


def test_a_route_for_plain_messages_gets_all_others_as_well() -> None:
    subscriptions, got = Subscriptions(), list[object]()
    subscriptions.add("a.>", got.append, plain=lambda *message: got.append(message))

    take_messages(STREAM, subscriptions)

    assert got == [MESSAGES[0], (b"a", b"in.box", b""), *MESSAGES[2:]]


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        (b'{"stream":"S", "seq":7}', True),
        (b'{"stream":"S","seq":7}', True),
        (b'{"stream":"S", "seq":7,"duplicate": true}', False),
        (b'{"stream":"S","domain":"d", "seq":7}', True),
        (b'{"stream":"S", "seq":-7}', False),
        (b'{"error":{"code":400},"stream":"S","seq":0}', False),
        (b'{"stream":"S","seq":7} ', False),
    ],
)
def test_only_an_ordinary_acknowledgement_is_taken_at_once(body: bytes, *, taken: bool) -> None:
    subscriptions, got = Subscriptions(), list[object]()
    inbox = subscriptions.add("in.box.*", got.append)
    match = acknowledgements("in.box", inbox.sid)
    subscriptions.acks = Acks(match, lambda found: got.append((found["token"], found["sequence"])))
    raw = b"MSG in.box.12 %b %d\r\n%b\r\n" % (SID, len(body), body)

    assert take_messages(raw + STREAM, subscriptions) == (len(raw + STREAM), 0)

    first = (b"12", b"7") if taken else Incoming("in.box.12", "", body)
    assert got == [first, *MESSAGES]


def test_an_answer_that_goes_on_is_no_acknowledgement() -> None:
    """Else whoever answers a request could write messages of any subscription."""
    subscriptions, got = Subscriptions(), list[object]()
    inbox = subscriptions.add("in.box.*", got.append)
    subscriptions.acks = Acks(acknowledgements("in.box", inbox.sid), got.append)
    body = b'{"stream":"S","seq":7}\r\nMSG a %b 2\r\nhi' % SID

    take_messages(b"MSG in.box.12 %b %d\r\n%b\r\n" % (SID, len(body), body), subscriptions)

    assert got == [Incoming("in.box.12", "", body)]


@pytest.mark.parametrize("subject", [b"inxbox.12", b"in.box.", b"in.box.1a", b"in.box.1.2"])
def test_an_acknowledgement_has_a_number_of_ours(subject: bytes) -> None:
    match = acknowledgements("in.box", FIRST_SID)
    body = b'{"stream":"S","seq":7}'

    assert match(b"MSG in.box.12 %b %d\r\n%b\r\n" % (SID, len(body), body), 0)
    assert not match(b"MSG %b %b %d\r\n%b\r\n" % (subject, SID, len(body), body), 0)


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_a_stream_may_be_cut_anywhere(cut: int) -> None:
    subscriptions, got = listening()
    take = HookedClient(subscriptions)._fast.take

    first = take(STREAM[:cut])
    second = take(first + STREAM[cut:])

    assert second == b""
    assert got == MESSAGES


@pytest.mark.parametrize("size", [1, 7, 100, 4096])
def test_a_large_message_may_come_in_many_pieces(size: int) -> None:
    subscriptions, got = listening()
    take = HookedClient(subscriptions)._fast.take
    body = bytes(range(256)) * 64
    stream = STREAM + b"MSG big %b %d\r\n%b\r\n" % (SID, len(body), body) + STREAM
    rest = b""

    for at in range(0, len(stream), size):
        rest = take(rest + stream[at : at + size])

    assert rest == b""
    assert got == [*MESSAGES, Incoming("big", "", body), *MESSAGES]


def test_a_large_body_is_not_copied_on_its_way_out() -> None:
    large, small = bytes(LARGE), b"x"
    frames = [
        Frame("a", small),
        Frame("b", large, "r", b"NATS/1.0\r\n\r\n"),
        Frame("", b"SUB c 1\r\n"),
        Frame("d", large),
        Frame("e", small),
    ]

    pieces = encode(frames)

    head = b"PUB a 1\r\nx\r\nHPUB b r 12 %d\r\nNATS/1.0\r\n\r\n" % (LARGE + 12)
    between = b"\r\nSUB c 1\r\nPUB d %d\r\n" % LARGE
    assert [bytes(piece) for piece in pieces] == [
        head,
        large,
        between,
        large,
        b"\r\nPUB e 1\r\nx\r\n",
    ]
    assert [piece.obj is large for piece in pieces if isinstance(piece, memoryview)] == [True, True]


@pytest.mark.parametrize("sid", [SID, b"%d" % (FIRST_SID + 1)])
@pytest.mark.parametrize(
    "line",
    [
        *(b"MSG a %b abc", b"MSG a %b -24", b"MSG a %b +2", b"MSG a %b 1_0", b"MSG a %b \t2"),
        *(b"MSG a %b ", b"MSG a %b 9999999999", b"MSG a %b b c 2", b"MSG a %b 1.5"),
        *(b"HMSG a %b 4 2", b"HMSG a %b -1 2", b"HMSG a %b x 2", b"HMSG a %b r x 2"),
    ],
)
def test_sizes_are_digits(line: bytes, sid: bytes) -> None:
    """A negative one would have the same bytes taken again and again."""
    subscriptions, got = listening()

    with pytest.raises(WireError, match="not a message of the NATS protocol"):
        take_messages(STREAM + line % sid + b"\r\nhi\r\n", subscriptions)
    assert got == MESSAGES


def test_a_subject_that_is_no_text_is_delivered_all_the_same() -> None:
    subscriptions, got = Subscriptions(), list[object]()
    subscriptions.add("a.>", got.append)
    odd = b"MSG a\xff %b x\xff 2\r\nhi\r\n" % SID

    assert take_messages(odd + STREAM, subscriptions) == (len(odd + STREAM), 0)
    assert got == [Incoming("a\ufffd", "x\ufffd", b"hi"), *MESSAGES]


@pytest.mark.parametrize("cut", [0, 30])
def test_what_raises_gets_the_next_message(cut: int, caplog: pytest.LogCaptureFixture) -> None:
    """In one piece or in several; the message after it is another subscription's or its own."""
    subscriptions, got = Subscriptions(), list[Incoming]()

    def choke(message: Incoming) -> None:
        got.append(message)
        raise RuntimeError("a defect")

    subscriptions.add("a.>", choke)
    take = HookedClient(subscriptions)._fast.take
    first = b"MSG a %b 9\r\nlong body\r\n" % SID

    assert take(take(first[:cut]) + first[cut:] + STREAM) == b""
    assert got == [Incoming("a", "", b"long body"), *MESSAGES]
    assert caplog.text.count("RuntimeError: a defect") == len(got)
