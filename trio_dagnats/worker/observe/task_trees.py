"""From a live attempt to what can be told of it: how it stands, and where each of its tasks does.

Only looks: at trio's public task tree and at frames. A task that waits costs some microseconds.

Who asks, and for what:

| who | what | how often |
|---|---|---|
| ``micro_service`` | :func:`attempt_trees`: all of them, for ``trio-dagnats ps`` | when asked |
| ``stalled`` | the innermost frame of each task; the tree of one that stands still | a minute |
| ``watchdog``, in its thread | whose task runs on the loop's stack | once a blockage |
| ``drain.overrun`` | the trees of those that do not end | a second, after the grace |

All but the watchdog ask in the loop's thread, so that the tasks which they look at do not run
meanwhile; a handler in a thread does. The watchdog reads the one stack that runs: good enough for a
line in the log.

From a stack to a line: a task that waits stands in trio, called by a library, called by the user's
code. The line that helps is the user's innermost one, so each code object is put in one of three
kinds (machinery, library, the user's), once. What is found is kept for one walk
(:class:`SourceLines`): of thousands of attempts most stand on the same few lines.
"""

import linecache
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import CodeType, CoroutineType, FrameType, GeneratorType
from typing import NamedTuple, final

import trio

from trio_dagnats.attempt.life import State
from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.wire.tree import AttemptTree, Phase, SourceLine, TaskTree
from trio_dagnats.worker.attempts.attempt import Attempt

MOST_TASKS = 100
"""Tasks of one attempt that are looked at."""
MOST_TEXT = 160
"""Characters of a source line that are told."""

_OURS = frozenset({"trio", "trio_dagnats", "trio_asyncio", "outcome", "threading"})
"""Packages whose frames are machinery: the line that waits in them is the user's."""
_LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    "<frozen",
)


@final
class SourceLines:
    """Finds the line of the user's code on which a stack stands; keeps what it has found.

    That is the innermost line outside of trio, this package, the standard library and installed
    libraries. The package of the handler counts as the user's even where it is installed.

    What it keeps is found by the identity of code objects: to hash one is to hash all of its code.
    The objects are held meanwhile (:class:`_Kind`), so that no identity comes twice.

    Made for one walk over the attempts, or for one attempt that is named, and then dropped.
    """

    def __init__(self) -> None:
        self._kinds: dict[int, _Kind] = {}
        self._chains: dict[tuple[int, ...], int] = {}
        self._places: dict[tuple[int, int], SourceLine] = {}
        self._leaves: dict[tuple[str, int], TaskTree] = {}

    def of_task(self, task: trio.lowlevel.Task) -> SourceLine | None:
        """Return the place on which a task stands.

        Many tasks stand in the same chain of coroutines: which of them is the user's is found out
        once. To look at the frame of each, every time, would take several times as long.
        """
        chain: list[CoroutineType[object, None, object]] = []
        codes: list[int] = []
        coro: object = task.coro
        while type(coro) is CoroutineType:
            chain.append(coro)
            codes.append(id(coro.cr_code))
            coro = coro.cr_await
        if type(coro) is not GeneratorType or coro.gi_yieldfrom is not None:
            return self.find(task_frames(task))  # an async generator, or it does not wait
        key = tuple(codes)
        depth = self._chains.get(key)
        if depth is None:
            depth = self._chains[key] = self._depth(task_frames(task))
        frame = chain[depth].cr_frame if depth < len(chain) else coro.gi_frame
        return None if frame is None else self._place(frame)

    def find(self, frames: Iterable[FrameType]) -> SourceLine | None:
        """Return the place of a stack, given from its outermost frame inwards."""
        stack = list(frames)
        return self._place(stack[self._depth(stack)]) if stack else None

    def _depth(self, frames: Sequence[FrameType]) -> int:
        """Say which frame of a stack, given from its outermost one inwards, is the place.

        The package of the first frame that is not machinery is the handler's *home*. Inwards from
        there the last frame counts that is of no library, or of the home. A stack of machinery
        alone has its innermost frame for a place.
        """
        best, home, known = 0, "", self._kinds.get
        for depth, frame in enumerate(frames):
            code = frame.f_code
            _, package, machinery, library = known(id(code)) or self._kind(code, frame)
            if machinery:
                best = best if home else depth
            elif not home or not library or package == home:
                home = home or package
                best = depth
        return best

    def leaf(self, name: str, place: SourceLine | None) -> TaskTree:
        """Return the entry of a task without children: the same object for those that are alike."""
        key = name, id(place)
        found = self._leaves.get(key)
        if found is None:
            found = self._leaves[key] = TaskTree(name, place)
        return found

    def _kind(self, code: CodeType, frame: FrameType | None) -> "_Kind":
        """Find out what a code object is: by the package that its module says, and its file."""
        package = _package(frame) if frame else "?"
        library = code.co_filename.startswith(_LIBRARIES)
        found = self._kinds[id(code)] = _Kind(code, package, package in _OURS, library)
        return found

    def _place(self, frame: FrameType) -> SourceLine:
        """Return the line on which a frame stands, with its text if the file can be read."""
        code, line = frame.f_code, frame.f_lineno
        found = self._places.get((id(code), line))
        if found is None:
            text = linecache.getline(code.co_filename, line, frame.f_globals).strip()
            file = code.co_filename.encode(errors="replace").decode()  # a path may be no text
            place = SourceLine(file, line, code.co_qualname, text[:MOST_TEXT])
            found = self._places[id(code), line] = place
        return found


class _Kind(NamedTuple):
    """What a code object is; held, so that no other one can get its identity.

    Attributes:
        code: the object.
        package: the first part of its module's name.
        machinery: it is trio's, ours, or of what stands between the two.
        library: its file is in the standard library or where packages are installed.
    """

    code: CodeType
    package: str
    machinery: bool
    library: bool


def attempt_tree(attempt: Attempt, places: SourceLines) -> AttemptTree:
    """Tell of an attempt, as it stands now; to be called in its trio run.

    Its age and what is left of its lease are seconds; negative once the lease has ended.
    """
    now = trio.current_time()
    phase, detail = _phase_of(attempt)
    return AttemptTree(
        run_id=attempt.task.run_id,
        step_id=attempt.task.step_id,
        attempt=attempt.task.number,
        task_type=attempt.program.task_type,
        deliveries=attempt.delivery.deliveries,
        age=round(now - attempt.delivery.received_at, 3),
        lease_left=round(attempt.lease_until - now, 3),
        phase=phase,
        detail=detail,
        tasks=_handler_tree(attempt, places),
    )


def attempt_trees(attempts: Iterable[Attempt]) -> Iterator[AttemptTree]:
    """Tell of attempts, one after the other; those whose message is not parsed yet are left out."""
    places = SourceLines()
    for attempt in attempts:
        if not attempt.over and attempt.task is not NO_TASK:
            yield attempt_tree(attempt, places)


def tasks_of(attempt: Attempt) -> Iterator[trio.lowlevel.Task]:
    """Yield the handler's task and its descendants, ``MOST_TASKS`` at most."""
    first = handler_task(attempt)
    todo = [first] if first is not None else []
    for _ in range(MOST_TASKS):
        if not todo:
            return
        task = todo.pop()
        yield task
        todo.extend(_children(task))


def handler_task(attempt: Attempt) -> trio.lowlevel.Task | None:
    """Return the task of the attempt's handler, None before and after the handler.

    Before and after it the task is the pool's, and may be another attempt's in the next moment.
    """
    before = attempt.state in {State.RECEIVED, State.STARTING}
    return None if before or attempt.returned or attempt.over else attempt.main_task


def task_frames(task: trio.lowlevel.Task) -> list[FrameType]:
    """Return the stack of a task that waits, from its outermost frame inwards.

    What trio's own walk yields, at a third of the price where there is no async generator.
    """
    found: list[FrameType] = []
    coro: object = task.coro
    while isinstance(coro, CoroutineType) and coro.cr_frame is not None:
        found.append(coro.cr_frame)
        coro = coro.cr_await
    if isinstance(coro, GeneratorType) and coro.gi_frame and coro.gi_yieldfrom is None:
        return [*found, coro.gi_frame]
    return [frame for frame, _ in task.iter_await_frames()]


def own_frames(frames: Sequence[FrameType]) -> Sequence[FrameType]:
    """Return a stack without the machinery at its outer end; all of it if nothing else is there."""
    for index, frame in enumerate(frames):
        if _package(frame) not in _OURS:
            return frames[index:]
    return frames


def thread_frames(ident: int) -> list[FrameType]:
    """Return the stack of a thread from its outermost frame inwards; empty if it has ended.

    The thread runs on meanwhile, so the frames are where it was and perhaps is no more.
    """
    frame = sys._current_frames().get(ident)  # noqa: SLF001 - the documented way
    found: list[FrameType] = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found[::-1]


def _package(frame: FrameType) -> str:
    """Return the first part of the name of a frame's module, ``?`` if it has none."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] or "?"


def _phase_of(attempt: Attempt) -> tuple[Phase, str]:
    """Say how an attempt stands, and its detail; the first that holds.

    A cancellation goes before all else: what a cancelled attempt does is coming to its end.
    """
    if attempt.reason is not None:
        return Phase.ENDING, attempt.reason.value
    if attempt.outcome is not None and not attempt.ended:
        return Phase.STORING, ""
    if attempt.waits:
        return Phase.WAITING, ", ".join(wait.what for wait in attempt.waits)
    if attempt.state in {State.RECEIVED, State.STARTING}:
        return Phase.STARTING, ""
    return Phase.WORKING, "in a thread" if attempt.thread is not None else ""


def _handler_tree(attempt: Attempt, places: SourceLines) -> TaskTree | None:
    """Return the tree of the handler's tasks; the thread of a plain ``def`` is one more child."""
    task = handler_task(attempt)
    if task is None:
        return None
    found = _Walk(places).tree(task)
    if attempt.thread is None:
        return found
    inner = TaskTree("thread", places.find(thread_frames(attempt.thread)))
    return replace(found, children=(*found.children, inner))


@final
class _Walk:
    """One walk over the tasks of an attempt, which looks at ``MOST_TASKS`` of them.

    Depth first, so that what is looked at hangs together; how many children were left out is told
    with their parent.
    """

    def __init__(self, places: SourceLines) -> None:
        self._places = places
        self._left = MOST_TASKS

    def tree(self, task: trio.lowlevel.Task) -> TaskTree:
        self._left -= 1
        place = self._places.of_task(task)
        children = _children(task)
        if not children:
            return self._places.leaf(task.name, place)
        looked: list[TaskTree] = []
        for child in children:
            if not self._left:
                break
            looked.append(self.tree(child))
        return TaskTree(task.name, place, _gather(looked), omitted=len(children) - len(looked))


def _children(task: trio.lowlevel.Task) -> list[trio.lowlevel.Task]:
    """Return the tasks in all nurseries of a task, in no order."""
    return [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def _gather(trees: Sequence[TaskTree]) -> tuple[TaskTree, ...]:
    """Make one entry of leaves that are alike, and put all in order: trio's own has none."""
    once = {id(tree): tree for tree in trees}
    if len(once) == len(trees):
        return tuple(sorted(trees, key=_order))
    counts = Counter(map(id, trees))
    found = [replace(t, alike=counts[i]) if counts[i] > 1 else t for i, t in once.items()]
    return tuple(sorted(found, key=_order))


def _order(tree: TaskTree) -> tuple[str, int, str]:
    return (tree.place.file, tree.place.line, tree.name) if tree.place else ("", 0, tree.name)
