"""Reading handlers' signatures when they are registered: what is wrong is said then, not later.

A function is taken as pydantic and Python see it: a partial counts as what it wraps, a callable
object as its ``__call__``, and annotations in quotes are looked up in the module that wrote them.
The functions of durable maps are read when they are called, for nobody registers those.
"""

import inspect
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Union, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from trio_dagnats.errors import UsageError
from trio_dagnats.worker.typed.typed_json import ANYTHING

if sys.version_info >= (3, 14):
    from annotationlib import Format

    # Else it fails where an annotation names what only the type checker has imported.
    _signature = partial(inspect.signature, annotation_format=Format.FORWARDREF)
else:
    _signature = inspect.signature


def name_of(function: Callable[..., object]) -> str:
    """Return the function's name for error texts."""
    inner = function.func if isinstance(function, partial) else function
    return getattr(inner, "__qualname__", repr(inner))


def is_async(function: Callable[..., object]) -> bool:
    """Say whether calling it gives a coroutine.

    Raises:
        UsageError: it is a generator of either kind, which is no handler.
    """
    inner = function.func if isinstance(function, partial) else function
    call = inner if inspect.isroutine(inner) else getattr(inner, "__call__", inner)  # noqa: B004
    if inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call):
        raise UsageError(
            f"handler {name_of(function)} is a generator; return the output, and use "
            "ctx.put_stream for partial results"
        )
    return inspect.iscoroutinefunction(call)


def check_parameters(function: Callable[..., object], names: tuple[str, ...]) -> None:
    """Check that the function can be called with exactly these arguments, by position.

    Raises:
        UsageError: it cannot; the text shows the wanted signature.
    """
    try:
        _signature(function).bind(*names)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"handler {name_of(function)} must take ({', '.join(names)}): {error}"
        ) from None


def annotation(function: Callable[..., object], position: int | None) -> object:
    """Return the type of a positional parameter, or of the return value for None.

    Raises:
        UsageError: there is none, or it names something that does not exist.
    """
    found = hint(function, position)
    if found is None:
        what = "its return value" if position is None else f"parameter {_key(function, position)!r}"
        raise UsageError(
            f"handler {name_of(function)} needs a type annotation for {what}; write object for "
            "any JSON"
        )
    return found


def hint(function: Callable[..., object], position: int | None) -> object | None:
    """Return the same type, None if there is no annotation.

    A return value that is annotated as None is ``type(None)``, and so not the same as none.

    Raises:
        UsageError: it names something that does not exist.
    """
    target = function.func if isinstance(function, partial) else function
    if not inspect.isroutine(target):
        target = getattr(target, "__call__", target)  # noqa: B004 - a callable object's own method
    try:
        hints = get_type_hints(target, include_extras=True)
    except NameError as error:
        raise UsageError(
            f"handler {name_of(function)}: {error}; annotations must name types that the module "
            "has when it runs: not of a function's body, nor imported for the type checker alone"
        ) from None
    found: object | None = hints.get(_key(function, position))
    return found


def _key(function: Callable[..., object], position: int | None) -> str:
    if position is None:
        return "return"
    return list(_signature(function).parameters)[position]


def adapter(function: Callable[..., object], type_: object) -> TypeAdapter[object]:
    """Return the validator and serialiser of a type.

    Raises:
        UsageError: pydantic cannot handle the type.
    """
    if type_ is object:
        return ANYTHING
    try:
        return TypeAdapter(cast("type[object]", type_))
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation) as error:
        first = str(error).splitlines()[0]
        raise UsageError(
            f"handler {name_of(function)}: type {type_!r} cannot be read from or written as JSON: "
            f"{first}; use a pydantic model, a dataclass, a TypedDict or builtins"
        ) from None


def members(type_: object) -> tuple[object, ...]:
    """Return the members of a union, or the type itself."""
    if get_origin(type_) in {Union, types.UnionType}:
        return get_args(type_)
    return (type_,)
