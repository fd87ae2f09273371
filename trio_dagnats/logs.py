"""The package's loggers: a log line can be lost, but it never breaks the code that writes it.

What a record passes through is the program's: record factory, filters, handlers, formatters. One of
them that raises, in the middle of an attempt or of the pull loop, would end the worker.
"""

import logging
from collections.abc import Mapping
from typing import TypedDict, Unpack, final

from trio_dagnats.inspection import class_name, is_interrupt


class _More(TypedDict, total=False):
    """What the standard library's loggers take beside the text and its arguments."""

    exc_info: BaseException | bool | None
    extra: Mapping[str, object] | None


@final
class Log:
    """Writes to a logger of the standard library, with its texts and arguments.

    A line that the program's logging refuses is written once more without traceback and fields,
    which may be what it cannot stand, and then, from a warning upwards, to standard error.

    Args:
        name: the logger's.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, text: str, *args: object, **more: Unpack[_More]) -> None:
        """Write what is of use to somebody who looks for a fault."""
        self._write(logging.DEBUG, text, args, more)

    def info(self, text: str, *args: object, **more: Unpack[_More]) -> None:
        """Write what happens in the ordinary way."""
        self._write(logging.INFO, text, args, more)

    def warning(self, text: str, *args: object, **more: Unpack[_More]) -> None:
        """Write what somebody should look at."""
        self._write(logging.WARNING, text, args, more)

    def error(self, text: str, *args: object, **more: Unpack[_More]) -> None:
        """Write what went wrong."""
        self._write(logging.ERROR, text, args, more)

    def log(self, level: int, text: str, *args: object, **more: Unpack[_More]) -> None:
        """Write a line of a level that is known only now."""
        self._write(level, text, args, more)

    def _write(self, level: int, text: str, args: tuple[object, ...], more: _More) -> None:
        if not self._logger.isEnabledFor(level):
            return
        failures: list[str] = []
        for tried in (more, _More()):
            try:
                # The line is said to be of whoever has called the method that has called this.
                self._logger.log(level, text, *args, stacklevel=3, **tried)
            except BaseException as bad:
                if is_interrupt(bad):
                    raise
                failures.append(class_name(bad))
            else:
                return
        last = logging.lastResort
        if last is not None and level >= last.level:
            text, args = f"{text} (logging raised %s)", (*args, ", then ".join(failures))
            last.handle(logging.LogRecord(self._logger.name, level, "", 0, text, args, None))
