"""What a worker tells of its attempts: parts that fit, and the drawing."""

from dataclasses import replace

import pytest

from trio_dagnats.errors import WireError
from trio_dagnats.wire.tree import (
    PART_FRAME,
    AttemptTree,
    Phase,
    SourceLine,
    TaskTree,
    lines,
    parts,
    read_part,
)

PLACE = SourceLine("app.py", 7, "fetch", "await client.get(url)")
CHILD = TaskTree("app.fetch", PLACE, alike=3)
ATTEMPT = AttemptTree(
    run_id="r",
    step_id="s",
    attempt=2,
    task_type="t",
    age=12.34,
    lease_left=250.0,
    tasks=TaskTree("t", SourceLine("app.py", 3, "handler"), (CHILD,), omitted=5),
)


def test_no_attempts_are_one_part() -> None:
    (raw,) = parts("w", [], 1_000_000)

    found = read_part(raw)
    assert (found.worker_id, found.part, found.more, found.attempts) == ("w", 0, False, ())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("room", [600, 1000, 5000, 10**6])
def test_parts_fit_and_hold_every_attempt_once_in_order(count: int, room: int) -> None:
    attempts = [replace(ATTEMPT, run_id=f"r{number}") for number in range(count)]

    raws = list(parts("w", attempts, PART_FRAME + room))

    assert max(map(len, raws)) <= PART_FRAME + room
    found = [read_part(raw) for raw in raws]
    assert [a for part in found for a in part.attempts] == attempts
    assert [part.part for part in found] == list(range(len(found)))
    assert [part.more for part in found] == [True] * (len(found) - 1) + [False]


def test_an_attempt_too_large_for_a_part_goes_without_its_tasks() -> None:
    large = replace(ATTEMPT, tasks=TaskTree("t" * 5000))

    (raw,) = parts("w", [large, ATTEMPT], PART_FRAME + 1000)

    assert read_part(raw).attempts == (replace(large, tasks=None), ATTEMPT)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"worker_id":"w"}', b"\xff"])
def test_what_is_no_part_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError, match="worker's tree"):
        read_part(raw)


def test_an_attempt_is_drawn_with_the_line_of_each_task() -> None:
    assert lines(ATTEMPT) == [
        "r.s attempt 2 of t: working, 12.3 s old, lease 250.0 s",
        "└─ t  app.py:3 in handler",
        "   ├─ app.fetch x3  app.py:7 in fetch: await client.get(url)",
        "   └─ and 5 more",
    ]


def test_siblings_are_drawn_below_each_other() -> None:
    inner = TaskTree("inner", children=(TaskTree("deep"),))
    tree = replace(ATTEMPT, tasks=TaskTree("t", children=(inner, TaskTree("last"))))

    assert lines(tree)[1:] == [
        "└─ t",
        "   ├─ inner",
        "   │  └─ deep",
        "   └─ last",
    ]


def test_a_wait_and_a_redelivery_are_told() -> None:
    waiting = replace(ATTEMPT, phase=Phase.WAITING, detail="signal go", deliveries=3, tasks=None)

    assert lines(waiting) == [
        "r.s attempt 2, delivery 3 of t: waiting (signal go), 12.3 s old, lease 250.0 s"
    ]
