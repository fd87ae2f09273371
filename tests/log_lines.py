"""Waiting for what the transport logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Said(logging.Handler):
    """Waits for a line in the log."""

    def __init__(self, text: str) -> None:
        super().__init__(logging.DEBUG)
        self._text = text
        self.said = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.said.set()


@contextmanager
def watching_the_log(text: str) -> Iterator[Said]:
    said, log = Said(text), logging.getLogger("trio_dagnats.transport")
    level = log.level
    log.addHandler(said)
    log.setLevel(logging.DEBUG)
    yield said
    log.setLevel(level)
    log.removeHandler(said)
