"""A thread that notices when the event loop stands still, and names the handler that blocks it.

While the loop is blocked nothing renews leases, and nobody in the loop can say so (design 8.7). The
thread asks the loop for a sign of life now and then and, once per blockage, reads the stack of the
loop's thread. The outermost frame of a coroutine that runs is on that stack: this is how it finds
whose task it is. It is the thread that keeps the time, so a virtual clock has no beats to jump to.

A handler that computes in C without letting go of the interpreter (a pathological regular
expression) stops the thread, too: it is named when that call ends.

::

    every BEAT seconds, in the thread:  ask the loop to sign      (token.run_sync_soon)
                                        signed lately?  ── yes ──> named before: say that it runs
                                           │ no, for BLOCKED s
                                           v
                                        the process stood?  ── yes ──> say nothing
                                           │ no
                                           v
                                        name it, once for this blockage

It renews nothing: a lease is renewed by a request whose answer the loop has to read. So naming the
handler is all that can be done before the leases end; the remedy is a plain ``def``, which runs in
a thread.
"""

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import FrameType
from typing import NamedTuple, final

import trio

from trio_dagnats.logs import Log
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.observe.task_trees import own_frames, tasks_of, thread_frames

log = Log("trio_dagnats.worker")

BEAT = 0.25
"""Seconds between two signs of life of the loop."""
BLOCKED = 1.0
"""Seconds without one after which the loop counts as blocked."""


class Blocker(NamedTuple):
    """What blocks the loop: an attempt's task, and its own part of the stack.

    Read while it runs, from another thread: good for a log line, and for nothing else.
    """

    attempt: Attempt
    task: trio.lowlevel.Task
    frames: Sequence[FrameType]


@final
class Watchdog:
    """Watches the loop that runs it, for as long as :meth:`run` runs.

    Args:
        live: gives the attempts in flight; called in the thread, must copy.
    """

    def __init__(self, live: Callable[[], Iterable[Attempt]]) -> None:
        self._live = live
        self._beat = 0.0
        self._over = threading.Event()

    @property
    def stood(self) -> float:
        """Seconds since the loop's last sign of life; 0 before it watches."""
        return time.monotonic() - self._beat if self._beat else 0.0

    async def run(self) -> None:
        """Watch until cancelled; the thread ends with it."""
        token = trio.lowlevel.current_trio_token()
        thread = partial(self._watch, threading.get_ident(), token)
        async with trio.open_nursery() as nursery:
            # A place of its own: trio's default limit is for the program's threads.
            place = trio.CapacityLimiter(1)
            nursery.start_soon(partial(trio.to_thread.run_sync, thread, limiter=place))
            try:
                await trio.sleep_forever()
            finally:
                self._over.set()

    def _sign(self) -> None:
        self._beat = time.monotonic()

    def _watch(self, loop_thread: int, token: trio.lowlevel.TrioToken) -> None:
        """Keep the time, in the thread, until ``_over``.

        ``named`` is the beat of the blockage that was named, 0 while there is none: the same beat
        is the same blockage, another one says that the loop has run since.
        """
        named = 0.0
        looked, cpu = time.monotonic(), time.process_time()
        self._beat = looked
        while not self._over.wait(BEAT):
            token.run_sync_soon(self._sign, idempotent=True)
            beat, now, used = self._beat, time.monotonic(), time.process_time()
            stood = process_stood(now - looked - BEAT, used - cpu)
            looked, cpu = now, used
            if named and beat != named:
                log.warning("the event loop runs again; it had stood still for %.1f s", now - named)
                named = 0.0
            if now - beat > BLOCKED and not named and not stood:
                named = beat
                self._name(loop_thread, now - beat)

    def _name(self, loop_thread: int, still: float) -> None:
        frames = thread_frames(loop_thread)
        found = self._find(frames)
        log.error(
            "%s the event loop, which has stood still for %.1f s; leases are not renewed "
            "meanwhile. A handler that computes or waits without trio belongs in a thread (write "
            "it as `def`):\n%s",
            _whose(found),
            still,
            _stack(found.frames if found else frames),
            extra=found.attempt.log_fields if found else None,
        )

    def _find(self, frames: list[FrameType]) -> Blocker | None:
        """Find the task whose coroutine runs on this stack."""
        for attempt in self._live():
            for task in tasks_of(attempt):
                outermost: FrameType | None = getattr(task.coro, "cr_frame", None)
                if outermost in frames:
                    own = own_frames(frames[frames.index(outermost) :])
                    return Blocker(attempt, task, own)
        return None


def process_stood(late: float, cpu: float) -> bool:
    """Say whether the whole process stood still (stopped, or its machine asleep), not its loop.

    Args:
        late: seconds by which the thread itself woke too late.
        cpu: seconds of processor time that the process has used meanwhile.
    """
    return late > BLOCKED / 2 and cpu < late / 2


def _whose(found: Blocker | None) -> str:
    if found is None:
        return "Something that is no handler's task blocks"
    attempt, task, _ = found
    child = "" if task is attempt.main_task else f", in its child task {task.name},"
    return f"{attempt.label} of task type {attempt.program.task_type}{child} blocks"


def _stack(frames: Iterable[FrameType]) -> str:
    found = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return "".join(found.format())
