"""A log line that the program's own logging refuses harms nobody."""

import logging
from collections.abc import Callable, Iterator

import pytest

from trio_dagnats.logs import Log


class Trouble(BaseException):
    """What the standard library does not catch."""


class Nested(logging.Handler):
    """Fails as a traceback of a deeply nested group does."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            raise RecursionError


def raises(*_: object) -> bool:
    """Stand for anything that a record passes through."""
    raise Trouble


def a_factory(_: logging.Logger) -> None:
    logging.setLogRecordFactory(raises)  # type: ignore[arg-type]  # it raises


def a_filter(logger: logging.Logger) -> None:
    logger.addFilter(raises)


def a_handler(logger: logging.Logger) -> None:
    handler = logging.Handler()
    handler.emit = raises  # type: ignore[assignment]  # it is there to raise
    logger.addHandler(handler)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of this test's own, and the factory as it was afterwards."""
    factory, found = logging.getLogRecordFactory(), logging.getLogger("trio_dagnats.test")
    yield found
    logging.setLogRecordFactory(factory)
    found.filters.clear()
    found.handlers.clear()


@pytest.mark.parametrize("breaks", [a_factory, a_filter, a_handler])
def test_a_line_that_is_refused_goes_to_standard_error(
    logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    breaks: Callable[[logging.Logger], None],
) -> None:
    breaks(logger)

    Log(logger.name).warning("%s is late", "r.s", extra={"run_id": "r"})

    assert capsys.readouterr().err == "r.s is late (logging raised Trouble, then Trouble)\n"


def test_a_traceback_that_cannot_be_written_does_not_take_the_line_with_it(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    logger.addHandler(Nested())

    Log(logger.name).error("%s failed", "r.s", exc_info=ValueError())

    assert "r.s failed" in caplog.text


def test_a_field_that_the_record_has_already_does_not_take_the_line_with_it(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    Log(logger.name).error("%s failed", "r.s", extra={"message": "mine"})

    assert "r.s failed" in caplog.text


def test_a_line_is_said_to_be_its_writer_s(caplog: pytest.LogCaptureFixture) -> None:
    Log("trio_dagnats.test").warning("here")

    (record,) = caplog.records
    assert record.funcName == "test_a_line_is_said_to_be_its_writer_s"
