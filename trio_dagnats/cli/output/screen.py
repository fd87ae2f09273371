"""Where output goes: data to stdout, everything said about it to stderr.

Colours are the terminal's own green, red, cyan and magenta, which are readable on light and dark
backgrounds; the status is always a word, too. Without a terminal nothing is coloured or cut.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import final

from pydantic_core import to_json
from rich.console import Console, RenderableType

PLAIN_WIDTH = 10_000
"""Columns of what is no terminal: lines are never cut for a program that reads them."""


@final
class Screen:
    """The two streams of the command line.

    Args:
        as_json: data is written as JSON.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._has_view = False

    @cached_property
    def out(self) -> Console:
        """The console of the data."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """The console of remarks, warnings and errors."""
        return _console(stderr=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at the data."""
        return self.out.is_terminal

    @property
    def is_live(self) -> bool:
        """Whether a view may be drawn again and again."""
        return self.is_terminal and not self.as_json

    @contextmanager
    def above_view(self) -> Iterator[None]:
        """Write what is said in a block above the live view that the console of the data draws.

        On a second console, the view would draw over it.

        Entered by ``dev``'s live view for as long as it draws. Then the remarks go to the data's
        console, if both are terminals: a redirected stderr still gets them.
        """
        self._has_view = True
        try:
            yield
        finally:
            self._has_view = False

    def show(self, renderable: RenderableType) -> None:
        """Write for people."""
        self.out.print(renderable, highlight=False, markup=False, soft_wrap=not self.is_terminal)

    def data(self, value: object) -> None:
        """Write one JSON document."""
        _write(to_json(value, indent=2))

    def line(self, value: object) -> None:
        """Write one line of JSON."""
        _write(to_json(value))

    def say(self, text: str) -> None:
        """Say something about what goes on."""
        console = self.out if self._has_view and self.err.is_terminal else self.err
        console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)

    def warn(self, text: str) -> None:
        """Warn of something."""
        self.say(f"warning: {text}")

    def fail(self, text: str) -> None:
        """Say what went wrong, in one sentence."""
        self.say(f"error: {text}")


def _console(*, stderr: bool) -> Console:
    # Emoji: ":a:" in an id or a path must stay what it is.
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        return Console(
            stderr=stderr, highlight=False, emoji=False, width=PLAIN_WIDTH, no_color=True
        )
    return console


def _write(raw: bytes) -> None:
    sys.stdout.write(raw.decode() + "\n")
    sys.stdout.flush()
