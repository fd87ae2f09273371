"""Waiting for what the transport logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Said(logging.Handler):
    """Waits until something has been logged so often."""

    def __init__(self, text: str, times: int) -> None:
        super().__init__(logging.DEBUG)
        self._text = text
        self._left = times
        self.said = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self._left -= self._text in record.getMessage()
        if self._left <= 0:
            self.said.set()


@contextmanager
def watching_the_log(text: str, times: int = 1) -> Iterator[Said]:
    said, log = Said(text, times), logging.getLogger("trio_dagnats.transport")
    level = log.level
    log.addHandler(said)
    log.setLevel(logging.DEBUG)
    yield said
    log.setLevel(level)
    log.removeHandler(said)
