"""Exceptions that a handler may raise, each of which could harm more than its own attempt."""

from collections.abc import Callable

import trio


class Endless(str):
    """A text whose methods cannot be used."""

    __slots__ = ()

    def splitlines(self, keepends: bool = False) -> list[str]:  # noqa: FBT001, FBT002 - str's
        raise ValueError

    __format__ = splitlines  # type: ignore[assignment]  # any call of it raises


class Speaks(Exception):  # noqa: N818 - it does
    """Its text is made by a function."""

    def __init__(self, speak: Callable[[], object]) -> None:
        super().__init__()
        self._speak = speak

    def __str__(self) -> str:
        return self._speak()  # type: ignore[return-value]  # that is what is tried


class NameRaises(type):
    """A class that will not be named."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]  # that it is another one is the point
        raise ValueError


class Nameless(Exception, metaclass=NameRaises):  # noqa: N818 - it has no name
    """An exception of such a class."""


class Hidden(Exception):  # noqa: N818 - it hides
    """An exception that cannot be looked at."""

    def __getattribute__(self, name: str) -> object:
        raise KeyboardInterrupt(name)


def raising(error: BaseException) -> Callable[[], object]:
    def speak() -> object:
        raise error

    return speak


def nested(depth: int) -> BaseException:
    error: BaseException = ValueError("deep")
    for _ in range(depth):
        error = BaseExceptionGroup("g", [error])
    return error


def shared(depth: int) -> BaseException:
    """Return a group with more paths to its only leaf than can be walked."""
    error: BaseException = ValueError("shared")
    for _ in range(depth):
        error = BaseExceptionGroup("g", [error, error])
    return error


def its_own_cause() -> BaseException:
    error = ValueError("loop")
    error.__cause__ = error.__context__ = error
    return error


ODD: dict[str, Callable[[], BaseException]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "SystemExit": SystemExit,
    "TrioInternalError": lambda: trio.TrioInternalError("not really"),
    "a group of them": lambda: BaseExceptionGroup("g", [KeyboardInterrupt(), GeneratorExit()]),
    "text raises": lambda: Speaks(raising(ValueError())),
    "text raises KeyboardInterrupt": lambda: Speaks(raising(KeyboardInterrupt())),
    "text is a number": lambda: Speaks(lambda: 3),
    "text is odd": lambda: Speaks(lambda: Endless("odd")),
    "text is very long": lambda: ValueError("x" * 3_000_000),
    "nested 500 deep": lambda: nested(500),
    "nested 5000 deep": lambda: nested(5000),
    "shared members": lambda: shared(100),
    "its own cause": its_own_cause,
    "no name": lambda: type("", (Exception,), {})("text"),
    "name raises": Nameless,
    "cannot be looked at": Hidden,
}
"""Makers of exceptions, by what is odd about them."""
TOO_ODD_FOR_A_NURSERY = {
    "nested 500 deep",
    "nested 5000 deep",
    "shared members",
    "cannot be looked at",
}
"""A nursery of trio's asks for the text of what it gets, splits it, and fails by it itself."""
