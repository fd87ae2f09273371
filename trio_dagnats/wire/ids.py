"""Ids as parts of models: what no subject and no key can hold is refused with its record.

A field of such a type is checked when the model is read, so nobody who has the model needs to check
again before he makes a subject of it. What ``wire.names`` checks is what users type in, one by one,
with a remedy for each kind.
"""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from trio_dagnats.wire.subjects import is_id


def _is_id(text: str) -> str:
    if not is_id(text):
        raise ValueError(
            f"{text[:80]!r} cannot be part of a subject: use words joined by dots, without spaces, "
            "'*' and '>'"
        )
    return text


def _is_id_or_empty(text: str) -> str:
    return _is_id(text) if text else text


Id: TypeAlias = Annotated[str, AfterValidator(_is_id)]
"""The id of a run or a step, or another name that becomes part of subjects and keys."""
IdOrEmpty: TypeAlias = Annotated[str, AfterValidator(_is_id_or_empty)]
"""The same; empty for none."""
