"""What users hand over: bytes as they are, everything else as JSON."""

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.text import compact, is_json

SHOWN = 40


def to_output(value: object) -> bytes:
    """Write a step's output: JSON bytes as they are, None as no output, all else as JSON.

    Raises:
        UsageError: the bytes are not JSON, or the value cannot be written.
    """
    if value is None:
        return b""
    if isinstance(value, bytes):
        if value and not is_json(value):
            raise UsageError(
                f"an output given as bytes must be JSON, not {value[:SHOWN]!r}; pass the object "
                "itself, or encode it with json.dumps(...).encode()"
            )
        return value if type(value) is bytes else b"".join((value,))
    return compact(value)


def to_bytes(value: object) -> bytes:
    """Write data that only handlers read: bytes as they are, all else as JSON.

    Raises:
        UsageError: the value cannot be written.
    """
    return value if isinstance(value, bytes) else compact(value)
