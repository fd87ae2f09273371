"""Handlers that make no progress, and have not said that they wait.

Progress means that some task of the attempt has moved on: a trio task that waits stands in a frame
of trio's, which is another object at each wait, so a handler that polls, streams or works moves and
one that hangs does not. A task that ends or begins is progress, too. A handler in a thread has
moved when its thread executes another instruction. ``pause`` and ``wait_for_signal`` are declared
waits and never named.

The look is one walk over the attempts in flight a minute, not a timer per attempt: about 5
microseconds for each task that stands. So a standstill is named between ``STILL`` and ``STILL``
plus ``EVERY`` seconds after the last progress, and a handler that has run for less than ``EVERY``
is not looked at. It is named and not ended: only its author knows whether it may take as long.
"""

from collections.abc import Callable, Iterable
from typing import final

import trio

from trio_dagnats.logs import Log
from trio_dagnats.wire.tree import lines
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.observe.task_trees import (
    SourceLines,
    attempt_tree,
    handler_task,
    task_frames,
    tasks_of,
    thread_frames,
)

log = Log("trio_dagnats.worker")

EVERY = 60.0
"""Seconds between two looks."""
STILL = 300.0
"""Seconds without progress after which a handler is named: an LLM call rarely takes as long."""
BATCH = 100
"""Attempts that are looked at in one turn of the event loop."""

Pose = dict[object, object]
"""The innermost frame of each task."""


@final
class Standstills:
    """Looks at handlers now and then, and names each standstill once.

    What it remembers of an attempt is how it stood at the last look that saw it move, and since
    when; it forgets those that are not in flight any more.

    Args:
        live: gives the attempts in flight.
    """

    def __init__(self, live: Callable[[], Iterable[Attempt]]) -> None:
        self._live = live
        self._poses: dict[Attempt, tuple[float, Pose]] = {}
        self._named: set[Attempt] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Look at every attempt, and name those that have stood still for ``STILL`` seconds."""
        before, self._poses = self._poses, {}
        for number, attempt in enumerate(list(self._live())):
            if number % BATCH == BATCH - 1:
                await trio.lowlevel.checkpoint()
            self._look_at(attempt, before.get(attempt))
        self._named &= self._poses.keys()

    def _look_at(self, attempt: Attempt, before: tuple[float, Pose] | None) -> None:
        now = trio.current_time()
        if handler_task(attempt) is None or attempt.waits or now - attempt.started_at < EVERY:
            return
        since, pose = now, _pose(attempt)
        if before is not None and before[1] == pose:
            since, pose = before
        else:
            self._named.discard(attempt)
        self._poses[attempt] = since, pose
        if now - since >= STILL and attempt not in self._named:
            self._named.add(attempt)
            _name(attempt, now - since)


def _pose(attempt: Attempt) -> Pose:
    """Return how an attempt stands.

    The frames are kept until the next look, or another one could get the place in memory, and seem
    to be the same. They are trio's own, and keep next to nothing of the user's alive.
    """
    found: Pose = {}
    for task in tasks_of(attempt):
        found[task] = task_frames(task)[-1:]
    if attempt.thread is not None:
        found["thread"] = [(id(f), f.f_lasti) for f in thread_frames(attempt.thread)[-1:]]
    return found


def _name(attempt: Attempt, seconds: float) -> None:
    """Log a standstill with the tree of its tasks, which shows the line that waits."""
    log.warning(
        "%s has made no progress for %.0f s, and has not said that it waits (pause, "
        "wait_for_signal); a timeout around the call would end it:\n%s",
        attempt.label,
        seconds,
        "\n".join(lines(attempt_tree(attempt, SourceLines()))),
        extra=attempt.log_fields,
    )
