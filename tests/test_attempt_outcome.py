import json

import pytest
import trio
from odd_errors import ODD, Speaks

from trio_dagnats.attempt.outcome import (
    Completed,
    Continued,
    Failed,
    RetryInPlace,
    classify,
    describe,
    event_for,
    in_place_delay,
)
from trio_dagnats.errors import (
    Fatal,
    NotStored,
    RateLimited,
    Retryable,
    UsageError,
    is_fatal,
    is_retryable,
)
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.task import Task
from trio_dagnats.wire.trace import NO_TRACE


def caused(error: Exception, cause: Exception) -> Exception:
    """Return the first error with the second as its explicit cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("boom"), FailureType.RETRIABLE, "ValueError: boom"),
        (ValueError(), FailureType.RETRIABLE, "ValueError"),
        (trio.TooSlowError(), FailureType.RETRIABLE, "TooSlowError"),
        (Fatal("no"), FailureType.NON_RETRIABLE, "no"),
        (Fatal(KeyError("k")), FailureType.NON_RETRIABLE, "'k'"),
        (Fatal(), FailureType.NON_RETRIABLE, "Fatal"),
        (ExceptionGroup("g", [ValueError("a")]), FailureType.RETRIABLE, "ValueError: a"),
        (ExceptionGroup("g", [ValueError("a"), Fatal("b")]), FailureType.NON_RETRIABLE, "b"),
        (
            ExceptionGroup("g", [ExceptionGroup("h", [Fatal("deep")])]),
            FailureType.NON_RETRIABLE,
            "deep",
        ),
        (caused(ValueError("outer"), Fatal("inner")), FailureType.NON_RETRIABLE, "inner"),
        (ExceptionGroup("g", [RateLimited("r"), Fatal("f")]), FailureType.NON_RETRIABLE, "f"),
        (SystemExit(3), FailureType.RETRIABLE, "SystemExit: 3"),
    ],
)
def test_classify_says_how_the_engine_shall_take_it(
    error: BaseException, kind: FailureType, text: str
) -> None:
    """Any Fatal wins wherever it hides; everything unknown is for the engine's policy."""
    found = classify(error)
    assert isinstance(found, Failed)
    assert (found.kind, found.error) == (kind, text)


def test_the_longest_rate_limit_of_a_group_wins() -> None:
    """Of several limits the longest is the one that has to pass."""
    found = classify(
        ExceptionGroup("g", [RateLimited("a", 2), RateLimited("b", 7.5), Retryable("c")])
    )
    assert found == Failed(kind=FailureType.RETRY_AFTER, error="b", retry_after_ms=7500)


def test_retryable_beats_plain_errors() -> None:
    """Retryable is kept with its delay."""
    found = classify(ExceptionGroup("g", [ValueError("a"), Retryable("b", delay=3)]))
    assert found == RetryInPlace(error="b", delay=3)


def test_a_store_that_was_not_acknowledged_is_tried_again_in_place() -> None:
    """The network's fault costs no retry of the engine's, unless an error says otherwise."""
    found = classify(NotStored("no answer"))
    assert isinstance(found, RetryInPlace)
    assert found.delay is None
    assert isinstance(classify(ExceptionGroup("g", [NotStored("n"), Fatal("f")])), Failed)


def test_a_large_group_is_told_in_part() -> None:
    """The text of a group lists its members, bounded."""
    text = describe(ExceptionGroup("g", [ValueError(str(i)) for i in range(7)]))
    assert "ValueError: 0; " in text
    assert text.endswith("and 2 more errors")


@pytest.mark.parametrize("odd", ODD)
def test_every_exception_has_a_text(odd: str) -> None:
    """Whatever its class makes of its name and its text, which is printable and not endless."""
    error = ODD[odd]()

    found = classify(error)

    assert isinstance(found, Failed)
    assert found.error == describe(error)
    assert 0 < len(found.error) <= 101_000


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Fatal(Speaks(int)), "its text cannot be read: __str__ raised TypeError"),
        (ValueError("\ud800"), "ValueError: \\ud800"),
        (type("", (Exception,), {})("text"), "an exception whose class has no name: text"),
    ],
)
def test_what_cannot_be_read_of_an_exception_is_said(error: Exception, text: str) -> None:
    """On-purpose errors keep their meaning, whatever they were made of."""
    assert describe(error) == text


def test_is_fatal_and_is_retryable_are_opposites() -> None:
    """Both look through groups and causes, and through cycles of causes."""
    loop = ValueError("a")
    loop.__cause__ = loop
    assert not is_fatal(loop)
    assert is_retryable(loop)
    assert is_fatal(ExceptionGroup("g", [caused(ValueError("x"), Fatal("y"))]))
    assert not is_retryable(Fatal("x"))


@pytest.mark.parametrize("delay", [-1.0, float("nan"), 1e9])
def test_absurd_delays_are_refused_where_they_are_written(delay: float) -> None:
    """A delay that makes no sense is the raiser's mistake."""
    with pytest.raises(UsageError, match="delay"):
        Retryable("x", delay=delay)


@pytest.mark.parametrize("after", [-0.1, float("nan")])
def test_absurd_limits_are_refused(after: float) -> None:
    """A rate limit needs a duration."""
    with pytest.raises(UsageError, match="after"):
        RateLimited("x", after)


@pytest.mark.parametrize(
    ("times", "wanted", "jitter", "expected"),
    [
        (1, None, 1.0, 1.0),
        (1, None, 0.0, 0.5),
        (3, None, 1.0, 4.0),
        (30, None, 1.0, 60.0),
        (9, 2.5, 0.0, 2.5),
    ],
)
def test_in_place_delay_grows_unless_asked(
    times: int, wanted: float | None, jitter: float, expected: float
) -> None:
    """The back-off doubles to a bound and is spread; the handler's own delay is taken as it is."""
    assert in_place_delay(times, wanted, jitter) == expected


@pytest.mark.parametrize(
    ("outcome", "type_", "msg_id"),
    [
        (Completed(b"1"), "step.completed", "r.s.step.completed"),
        (Continued(b""), "step.continue", "r.s.continue.4.9"),
        (Failed(kind=FailureType.RETRIABLE, error="x"), "step.failed", "r.s.step.failed"),
    ],
)
def test_each_outcome_has_its_event(
    outcome: Completed | Continued | Failed, type_: str, msg_id: str
) -> None:
    """The event of an outcome has the contract's type and id."""
    event = event_for(
        outcome,
        Task(run_id="r", step_id="s"),
        dispatch=9,
        worker_id="w",
        time_ns=0,
        trace=NO_TRACE,
        iteration=4,
    )
    assert event.msg_id == msg_id
    assert json.loads(event.body)["type"] == type_
