import dataclasses
import json

import pytest
from pydantic import BaseModel

from trio_dagnats.errors import UsageError, WireError
from trio_dagnats.wire.text import (
    MAX_ERROR,
    clean_error,
    compact,
    is_json,
    parse_rfc3339,
    rfc3339,
)


class Model(BaseModel):
    """A model with a nested value."""

    name: str
    inner: "Model | None" = None


@dataclasses.dataclass
class Data:
    """A plain dataclass."""

    size: int


def test_compact_writes_what_pydantic_knows() -> None:
    """Models, dataclasses and builtins become JSON without spaces."""
    value = {"m": Model(name="ü"), "d": Data(3), "t": (1, 2.5, None, True)}
    written = compact(value)
    assert b" " not in written
    assert json.loads(written) == {
        "m": {"name": "ü", "inner": None},
        "d": {"size": 3},
        "t": [1, 2.5, None, True],
    }


@pytest.mark.parametrize("value", [object(), {"a": lambda: 1}, {"x": object()}])
def test_compact_refuses_what_is_no_data(value: object) -> None:
    """A value that cannot be written is the caller's mistake, named by its type."""
    with pytest.raises(UsageError, match="cannot write"):
        compact(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_compact_refuses_numbers_that_json_has_not(value: object) -> None:
    """NaN and infinities would make the whole event unreadable for the engine."""
    with pytest.raises(UsageError, match=r"NaN|Infinity"):
        compact(value)


def test_compact_takes_texts_that_look_like_nan() -> None:
    """Only numbers are refused, not the word in a text."""
    assert compact(["NaN", "Infinity"]) == b'["NaN","Infinity"]'


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1", True),
        (b'{"a":[]}', True),
        (b"", False),
        (b"{", False),
        (b"NaN", False),
        (b"1 2", False),
        (b'"NaN and Infinity"', True),
        (b"[NaN]", False),
        (b'{"a": -Infinity}', False),
        (b'{"a": {"b": [1, 2.5, null, true]}}', True),
        (b'{"a": 1,}', False),
        (b'"a\x01"', False),
        (b'"\xff"', False),
        (b'"\\ud800"', False),
        (b"[" * 100_000, False),
    ],
)
def test_is_json(raw: bytes, *, expected: bool) -> None:
    """Exactly one JSON value counts."""
    assert is_json(raw) is expected


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (1_786_000_000_123_456_789, "2026-08-06T07:06:40.123456789Z"),
        (1_000_000_010, "1970-01-01T00:00:01.00000001Z"),
    ],
)
def test_times_are_written_as_go_writes_them(time_ns: int, text: str) -> None:
    """UTC, up to nine digits, trailing zeros trimmed; reading gives the same time back."""
    assert rfc3339(time_ns) == text
    assert parse_rfc3339(text) == time_ns


@pytest.mark.parametrize(
    "text",
    ["2026-08-07T12:00:00.5-05:00", "2026-08-07T17:00:00.5Z", "2026-08-07t17:00:00.500z"],
)
def test_times_are_read_with_any_offset(text: str) -> None:
    """Go workers write their local offset."""
    assert rfc3339(parse_rfc3339(text)) == "2026-08-07T17:00:00.5Z"


@pytest.mark.parametrize("text", ["", "now", "2026-08-07", "2026-13-07T00:00:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A text that is no time is named."""
    with pytest.raises(WireError, match="not an RFC 3339 time"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("boom", "boom"),
        ("", "unknown error"),
        ("\x00\x07", "unknown error"),
        ("bad \x1b[31m byte\x07", "bad  [31m byte"),
        ("first\n  second\r\n", "first | second"),
        ("ü 語", "ü 語"),
        ("c1 \x9b here", "c1   here"),
    ],
)
def test_error_texts_lose_what_the_engine_cannot_quote(text: str, clean: str) -> None:
    """No control characters, never empty."""
    assert clean_error(text) == clean


def test_error_texts_are_bounded() -> None:
    """A huge text is cut, and says how long it was."""
    clean = clean_error("x" * 100_000)
    assert len(clean) < MAX_ERROR + 50
    assert "100000" in clean
