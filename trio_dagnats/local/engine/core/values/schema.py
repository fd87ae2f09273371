"""The part of JSON Schema that workflows use for their input (contract 10.1). Pure.

``type``, ``required`` and ``properties``; everything else in a schema is ignored, as the DagNats
engine does. A schema is checked where a run is asked for and again where it begins, because an
event that starts a run need not have come through the API.
"""

from collections.abc import Iterator, Mapping

TYPES = frozenset({"string", "number", "boolean", "object", "array"})


def mismatch(schema: Mapping[str, object] | None, value: object, place: str = "") -> str:
    """Say where a value does not fit a schema, and how; empty if it does.

    The first problem only, in the order: the type, missing fields, then the fields one by one.
    An empty schema, or none, fits everything.
    """
    if not schema:
        return ""
    wanted, found = schema.get("type"), json_type(value)
    if wanted and wanted != found:
        return f"{place or 'the input'} must be {wanted}, not {found}"
    if not isinstance(value, dict):
        return ""
    for key in _list(schema.get("required")):
        if key not in value:
            return f"{place or 'the input'} lacks the field {key!r}"
    for key, inner in _mapping(schema.get("properties")).items():
        problem = mismatch(_mapping(inner), value[key], _inside(place, key)) if key in value else ""
        if problem:
            return problem
    return ""


def unknown_types(schema: Mapping[str, object] | None, place: str = "") -> Iterator[str]:
    """Yield the types that no value has, such as ``integer``, and where they stand.

    For ``supported``: such a schema would refuse every value there.
    """
    wanted = (schema or {}).get("type")
    if wanted and wanted not in TYPES:
        yield f"the type {wanted!r} of {place or 'the input'}"
    for key, inner in _mapping((schema or {}).get("properties")).items():
        yield from unknown_types(_mapping(inner), _inside(place, key))


def json_type(value: object) -> str:
    """Return a JSON value's type by its name in schemas."""
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "number", float: "number", dict: "object", list: "array"}
    return names.get(type(value), "null")


def _inside(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _mapping(value: object) -> Mapping[str, object]:
    """Read a part of a schema; one of another kind says nothing and constrains nothing."""
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    """The same for a list."""
    return value if isinstance(value, list) else []
