"""The trio tasks in which attempts run: after an ordinary end the next attempt takes the same one.

A task of its own with a scope of its own costs 11 us, a parked one that is woken 1.5, one that goes
on at once with the next attempt nearly nothing. While an attempt lasts it has its task and scope
for itself, and the next one finds them as if they were new: nothing was cancelled, no deadline was
set, whatever the handler opened is closed, and its context variables are gone. After anything else
the task ends with its attempt.

Attempts that are ready stand in a line, in their order. A task takes one after the other as long as
their handlers do not wait. Nobody knows that before, so it first calls another task, which comes in
trio's next turn: if it finds that a handler waits, it calls one task for each attempt in the line,
and each new attempt gets one at once, until a handler ends before another task has come.

The pool takes handlers for one of two kinds, until it learns better::

    "they end at once" ── a task comes, and another one's handler has not ended ──> "they wait"
           ^                                                                            │
           └──── the newest handler ends before another task has come ──────────────────┘

| | they end at once | they wait |
|---|---|---|
| an attempt comes, no task is called | one task is called | one task is called |
| an attempt comes, one is called | it stands in line | one more is called |
| a task comes | one is called, if any are behind the first | one for each that is behind |

The life of a task::

    called ──> comes, takes the first in line ──> one attempt ── not ordinary ──> ends with it
      ^                  ^                             │
      │                  └── takes the next ───────────┤ ordinary
      │                                                v
      └── parked, without a context <── the line is empty, or the context was changed

| a task ends with its attempt | because |
|---|---|
| that was cancelled, or its scope has a shield | the next one would inherit it |
| its scope has a deadline, as of all that are no longer young | the same |
| its handler has left a cancel scope open | the next one would run in that |
| it has neither posted its outcome nor ended | it needs its farewell now |
| enough tasks are parked already | it is one too many |

An attempt that has a scope before it has a task (it was cancelled or bounded while it stood in a
line, or it comes back from the fast path) gets a task of its own, entered with that scope.
"""

from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import final

import trio

from trio_dagnats.attempt.life import State
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.inspection import is_interrupt, leaves
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import FOREVER
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.execution.execute import (
    run_handler,
    runs_elsewhere,
    until_handler,
)
from trio_dagnats.worker.execution.farewell import farewell

log = Log("trio_dagnats.worker")

Interrupt = Callable[[BaseException], None]
_Variables = tuple[tuple[ContextVar[object], object], ...]

_EMPTY = Context()
"""The context of tasks without an attempt: nothing that a handler has set is kept."""


@final
class TaskPool:
    """Gives attempts a task.

    Made by ``service`` for one run of the worker; :meth:`run` is what ``InFlight.spawn`` is then.
    The other methods are for its own tasks. All state is changed between two waits of trio's, so
    no lock is needed.

    Args:
        nursery: where the tasks live; cancel it when no attempt is left.
        most: tasks that are kept without an attempt.
        interrupt: called with a Ctrl-C that trio has raised in an attempt.

    The context variables of each attempt are those of the maker of this.
    """

    def __init__(self, nursery: trio.Nursery, most: int, interrupt: Interrupt) -> None:
        self._nursery = nursery
        self._most = most
        self.interrupt = interrupt
        self._context = copy_context()
        self._idle: list[_PooledTask] = []
        self._line: deque[Attempt] = deque()
        self._called = 0  # never 0 while attempts stand in line and no task is at work on it
        self._begun: Attempt | None = None  # the newest whose handler has not ended
        self._waits = False

    def run(self, attempt: Attempt) -> None:
        """Go on with an attempt in a task, from the state in which it stands.

        Called by callbacks of the transport and by whoever cancels, so it never waits. An attempt
        that has a scope already was cancelled or bounded: it gets a task of its own for that.
        """
        if attempt.own_scope is not None:
            self._start(attempt)
            return
        self._line.append(attempt)
        if self._waits or not self._called:
            self._call()

    def come(self) -> Attempt | None:
        """Take the first in line, for a task that was called; None if others were quicker.

        This is where the pool learns whether handlers wait: while a handler that does not wait
        runs, no other task can come.
        """
        self._called -= 1
        if self._begun is not None:  # and it is another task's
            self._waits, self._begun = True, None
        behind = len(self._line) - 1
        wanted = behind if self._waits else min(1, behind)
        for _ in range(wanted - self._called):
            self._call()
        return self.next()

    def next(self) -> Attempt | None:
        """Take the first in line; None if there is none."""
        while self._line:
            attempt = self._line.popleft()
            if attempt.own_scope is None:
                return attempt
            self._start(attempt)  # it was ended or bounded while it stood in line
        return None

    def begun(self, attempt: Attempt) -> None:
        """Be told that the handler of an attempt begins; the newest one is all that counts."""
        self._begun = attempt

    def ended(self, attempt: Attempt) -> None:
        """Be told that it has ended."""
        if self._begun is attempt:
            self._waits, self._begun = False, None

    def keep(self, runner: "_PooledTask") -> bool:
        """Keep a task for the next attempts; False if there are enough of them.

        As many as there are slots, so that a full worker finds a parked task for each.
        """
        if len(self._idle) >= self._most:
            return False
        self._idle.append(runner)
        return True

    def remove(self, runner: "_PooledTask") -> None:
        """Take a task out that ends without another attempt."""
        self._idle.remove(runner)

    def _call(self) -> None:
        self._called += 1
        if self._idle:
            self._idle.pop().wake(self._context.copy())
        else:
            self._start(None)

    def _start(self, attempt: Attempt | None) -> None:
        name = attempt.program.task_type if attempt is not None else None
        start = partial(self._nursery.start_soon, _PooledTask(self, attempt).run, name=name)
        self._context.copy().run(start)


@final
class _PooledTask:
    """One task. ``_attempt`` is None while it has none.

    Its scope is that of its attempts, one after the other: it is the attempt's ``own_scope`` from
    ``_begin`` to ``_leave``, so whoever cancels an attempt cancels this scope and no other.
    """

    __slots__ = ("_attempt", "_misnested", "_pool", "_task")

    _task: trio.lowlevel.Task

    def __init__(self, pool: TaskPool, attempt: Attempt | None) -> None:
        self._pool = pool
        self._attempt = attempt
        self._misnested = False

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Work until an attempt ends in another than the ordinary way.

        What leaves the scope is a cancellation from outside the worker, a Ctrl-C that struck here,
        or a fault of the worker's own. A handler's errors never come so far (``run_handler``).
        However it ends, an attempt that is still here gets its farewell and leaves, else its slot
        were lost; unless this coroutine is being closed, and must not wait any more.

        Cancellation (from outside the worker): the handler is cancelled and the task handed back,
        within ``FAREWELL`` seconds.
        """
        self._task = trio.lowlevel.current_task()
        first = self._attempt
        try:
            if first is None or not first.cancelled:  # else it was ended before it had a task
                with first.scope if first is not None else trio.CancelScope() as scope:
                    await self._work(scope)
        except BaseException as error:  # a cancellation from outside, a Ctrl-C, a fault of ours
            if self._misnested and isinstance(error, RuntimeError):
                text = "%s: its handler has left a cancel scope open; use `with`"
                log.error(text, self._task.name, exc_info=error)  # noqa: TRY400 - in trio's own words
                return
            self._give_reason(error)
            if not is_interrupt(error):
                raise
            self._pool.interrupt(error)
        finally:
            if self._attempt is not None and not runs_elsewhere(self._task):
                await _end(self._attempt)

    def _give_reason(self, error: BaseException) -> None:
        """Only who was cancelled from outside is let go: the start of any other one counts."""
        attempt = self._attempt
        if attempt is not None:
            cancelled = all(type(leaf) is trio.Cancelled for leaf in leaves(error))
            broken = CancelReason.DRAIN if cancelled else CancelReason.BROKEN_OFF
            attempt.reason = attempt.reason or broken
            error.add_note(f"in {attempt.label} of {attempt.program.task_type!r}")

    def wake(self, context: Context) -> None:
        """Let the task come for the line, with the context in which its attempts shall run."""
        self._task.context = context
        trio.lowlevel.reschedule(self._task)

    async def _work(self, scope: trio.CancelScope) -> None:
        """Take one attempt after the other; returns when the task has to end.

        ``status`` and ``found`` are what the task was like before the first attempt. They are
        compared after each one, because nobody can ask a handler whether it has tidied up.
        """
        status, found, pool = _status(self._task), _variables(), self._pool
        attempt = self._attempt or pool.come()
        while True:
            while attempt is not None:
                self._begin(attempt, scope)
                if attempt.state is State.RUNNING or await until_handler(attempt):
                    pool.begun(attempt)
                    try:
                        rest = await run_handler(attempt)
                    finally:
                        pool.ended(attempt)
                    if rest is not None:
                        await rest
                if not self._leave(attempt, scope, status):
                    return
                # What has changed the context must not be followed by another attempt in it.
                attempt = pool.next() if _are_as_they_were(found) else None
            if not pool.keep(self):
                return
            self._task.context = _EMPTY
            await trio.lowlevel.wait_task_rescheduled(self._end)
            found = _variables()
            attempt = pool.come()

    def _begin(self, attempt: Attempt, scope: trio.CancelScope) -> None:
        """Give the task to an attempt; its name is what trio's own tools show."""
        self._attempt = attempt
        self._task.name = attempt.program.task_type
        attempt.own_scope, attempt.main_task = scope, self._task

    def _leave(self, attempt: Attempt, scope: trio.CancelScope, status: object) -> bool:
        """Part from an attempt; False if the next one would not find the task as if it were new."""
        self._misnested = _status(self._task) is not status
        if (
            self._misnested
            or not (attempt.pending is not None or attempt.ended)
            or attempt.reason is not None
            or scope.deadline != FOREVER
            or scope.shield
        ):
            return False
        self._attempt = None
        attempt.own_scope = attempt.main_task = None  # they are another attempt's from now on
        if attempt.pending is None:  # else the acknowledgement ends it (``fast_path``)
            attempt.in_flight.leave(attempt)
        return True

    def _end(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """Be cancelled while parked: the worker has ended, and there is no attempt to see to."""
        self._pool.remove(self)
        return trio.lowlevel.Abort.SUCCEEDED


def _variables() -> _Variables:
    return tuple(copy_context().items())


def _are_as_they_were(found: _Variables) -> bool:
    """Compare by identity: an equal value may be another list, and some cannot be compared."""
    if len(copy_context()) != len(found):
        return False
    for variable, value in found:  # noqa: SIM110 - a generator costs more than all of it
        if variable.get(_EMPTY) is not value:
            return False
    return True


async def _end(attempt: Attempt) -> None:
    """Answer for an attempt, free its slot: its own clean-up has a deadline of its own."""
    try:
        await farewell(attempt)
    finally:
        if attempt.pending is None:  # else the acknowledgement ends it (``fast_path``)
            attempt.in_flight.leave(attempt)


def _status(task: trio.lowlevel.Task) -> object:
    """Return what is the same as long as a task has left every scope that it has entered.

    Private to trio, and all that shows a scope which a handler has entered and not left.
    """
    return getattr(task, "_cancel_status", task)
