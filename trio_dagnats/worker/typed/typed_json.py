"""Values of annotated types to JSON and back, with errors that name the place."""

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from trio_dagnats.errors import Fatal, UsageError
from trio_dagnats.wire.text import compact

SHOWN_ERRORS = 5
ANYTHING: TypeAdapter[object] = TypeAdapter(object)
"""Any JSON: written as what it is, with NaN refused rather than turned into null."""


def read(adapter: TypeAdapter[object], raw_json: bytes, what: str) -> object:
    """Validate JSON; bad input is the same on every try, so it is never retried.

    Raises:
        Fatal: it does not validate; the text names the fields.
    """
    try:
        return adapter.validate_json(raw_json or b"null")
    except ValidationError as error:
        raise Fatal(validation_text(error, what)) from error


def write(adapter: TypeAdapter[object], value: object, what: str) -> bytes:
    """Write a value as its annotation says.

    Raises:
        Fatal: it does not fit.
    """
    try:
        if adapter is ANYTHING:
            return compact(value)
        return adapter.dump_json(value, by_alias=True, warnings="error")
    except (PydanticSerializationError, UsageError) as error:
        raise Fatal(f"{what} does not fit its annotation: {error}") from error


def round_trip(adapter: TypeAdapter[object], value: object, what: str) -> tuple[bytes, object]:
    """Write a value that this program will read again; return it with what will be read.

    Raises:
        Fatal: it does not fit its annotation, or could not be read back.
    """
    written = write(adapter, value, what)
    try:
        return written, adapter.validate_json(written)
    except ValidationError as error:
        raise Fatal(
            f"what was written could not be read back: {validation_text(error, what)}"
        ) from error


def validation_text(error: ValidationError, what: str) -> str:
    """Say which fields of what are wrong, and how; the first few."""
    return "; ".join(
        f"{'.'.join([what, *map(str, found['loc'])])}: {found['msg']}"
        for found in error.errors(include_url=False, include_input=False)[:SHOWN_ERRORS]
    )
