"""Text on the wire: JSON, times, error texts.

The other side is Go: its decoder takes no NaN, its times have up to nine digits and no zeros at the
end, and it quotes control characters as no JSON reader understands them. What is written here is
what it reads; what is read here may be anybody's, so ``MISREAD`` names all that reading
it can raise.

Called from everywhere, also for each task: ``quote``, ``rfc3339`` and ``skim`` are on the hot path.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from pydantic_core import (
    PydanticSerializationError,
    SchemaValidator,
    core_schema,
    from_json,
    to_json,
)

from trio_dagnats.errors import UsageError, WireError

NS = 1_000_000_000
MAX_ERROR = 8000
"""Characters of an error text: a run's snapshot holds it, and must fit ``max_payload`` (H29)."""
UNKNOWN_ERROR = "unknown error"
"""Stands for an error without a text: an empty one would be taken for a retriable failure."""

_ANYTHING = core_schema.with_default_schema(
    core_schema.typed_dict_schema({}, extra_behavior="ignore"), default=None, on_error="default"
)
skim: Callable[[bytes], object] = SchemaValidator(_ANYTHING).validate_json
"""Makes sure that the bytes are one JSON value (NaN and infinities are let pass), else ValueError.

It makes nothing of them: a quarter of the time, and no copy.
"""
MISREAD = (
    *(AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError),
    UsageError,
)
"""What reading somebody else's JSON raises when it is not what it should be: no JSON at all, deeper
than its reader goes, another type, an absent key, a number too large, NaN that is written again."""
_WHOLE = re.compile(r"[0-9]{1,18}").fullmatch
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


def compact(value: object) -> bytes:
    """Write compact UTF-8 JSON of anything that pydantic can serialise.

    Raises:
        UsageError: it cannot; the text names the type. NaN and infinities are refused, too: JSON
            has none, and the engine's decoder would refuse the whole event.
    """
    try:
        written = to_json(value, inf_nan_mode="constants", by_alias=True)
    except (PydanticSerializationError, RecursionError, ValueError) as error:
        raise UsageError(f"cannot write {type(value).__name__} as JSON: {error}") from error
    if _may_hold_constants(written):
        _refuse_constants(written)
    return written


def quote(text: str) -> str:
    """Write a JSON string; most are ids that need no escaping."""
    plain = text.isascii() and text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if plain else json.dumps(text)


def is_json(raw: bytes) -> bool:
    """Say whether the bytes are one JSON value."""
    try:
        skim(raw)
        if _may_hold_constants(raw):
            from_json(raw, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def whole(text: str) -> int | None:
    """Read a whole number of ASCII digits that fits 64 bits; None if it is none.

    ``str.isdigit`` takes more: digits that ``int`` refuses, and more of them than it reads.
    """
    return int(text) if _WHOLE(text) else None


def rfc3339(time_ns: int) -> str:
    """Write a time (nanoseconds since the epoch) as the engine does: UTC, zeros trimmed."""
    seconds, fraction = divmod(time_ns, NS)
    if not fraction:
        return f"{_second(seconds)}Z"
    digits = str(NS + fraction)[1:]  # half the price of a format with zeros in front
    return f"{_second(seconds)}.{digits.rstrip('0')}Z"


def parse_rfc3339(text: str) -> int:
    """Read an RFC 3339 time with any offset and fraction; nanoseconds since the epoch.

    Raises:
        WireError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise WireError(f"not an RFC 3339 time: {text!r}")
    day, clock, fraction, offset = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as error:
        raise WireError(f"not an RFC 3339 time: {text!r}") from error
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    since = moment - epoch
    whole = since.days * 86_400 + since.seconds
    return whole * NS + int((fraction or "").ljust(9, "0")[:9] or 0)


def clean_error(text: str) -> str:
    r"""Make an error text that the engine can handle: no controls, never empty, bounded.

    The engine quotes it with Go's rules, which give invalid JSON for control characters (contract
    H26), and takes an empty one for a retriable failure (contract 4.2). Line ends become ``" | "``.
    """
    joined = " | ".join(line.strip() for line in text.splitlines() if line.strip())
    cleaned = "".join(c if c.isprintable() else " " for c in joined).strip()
    if len(cleaned) > MAX_ERROR:
        cleaned = f"{cleaned[:MAX_ERROR]}... ({len(cleaned)} characters)"
    return cleaned or UNKNOWN_ERROR


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _may_hold_constants(raw: bytes) -> bool:
    # One letter is found forty times as quickly, and most texts have neither.
    return (b"N" in raw and b"NaN" in raw) or (b"I" in raw and b"Infinity" in raw)


def _refuse_constants(written: bytes) -> None:
    def refuse(name: str) -> object:
        raise UsageError(f"cannot write {name} as JSON: replace it by null or a number")

    json.loads(written, parse_constant=refuse)
