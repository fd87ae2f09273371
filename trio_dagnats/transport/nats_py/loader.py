"""Loads trio-asyncio, with help on the Pythons that it does not know yet.

asyncio of Python 3.14 has two classes no longer under the names by which trio-asyncio 0.16 imports
them, and its tasks take a step only while their loop is the thread's running one. trio-asyncio does
not make it that, so every call would wait for ever. A trio-asyncio that imports by itself is left
alone.

The two helps, and how long each lasts:

=========================  ==========================================  =====================
what is missing            what is done                                how long
=========================  ==========================================  =====================
two names in asyncio       lent                                        during the import
the running loop           set around each callback of its loops       as long as the process
=========================  ==========================================  =====================

Run once, by this room's ``__init__``, before anything here imports ``trio_asyncio``. The private
names of asyncio that it takes stand here and nowhere else; one that is gone at the import is
an ``ImportError`` that names the versions.
"""

import asyncio
import asyncio.events
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter

_POLICY = "BaseDefaultEventLoopPolicy"
_the_running = attrgetter(
    "events._get_running_loop", "events._set_running_loop", "tasks._swap_current_task"
)
_loop_of = attrgetter("_loop")


def load() -> None:
    """Import trio-asyncio.

    Its use of what asyncio deprecates is kept quiet: nobody who reads the warning can mend it.

    Raises:
        ImportError: it needs help on this Python, and other help than we know.
    """
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            import_module("trio_asyncio")
        except AttributeError as error:
            if error.name != _POLICY:
                raise
        else:
            return
        try:
            the_running = _the_running(asyncio)  # before the import, which replaces the first
            with _lent_names():
                found = import_module("trio_asyncio")
        except AttributeError as error:
            raise ImportError(
                f"trio-asyncio {version('trio-asyncio')} does not fit Python "
                f"{platform.python_version()} ({error}): use Python 3.11 to 3.14, or a release of "
                "trio-asyncio that knows this one"
            ) from error
    _step_in_own_loop(found.TrioEventLoop, *the_running)


@contextmanager
def _lent_names() -> Iterator[None]:
    """Give asyncio the two names back for the length of a block only: others look for them, too."""
    lent = (
        (vars(asyncio.events), _POLICY, attrgetter("_" + _POLICY)(asyncio.events)),
        (vars(asyncio), "AbstractChildWatcher", object),
    )
    for names, name, value in lent:
        names[name] = value
    try:
        yield
    finally:
        for names, name, _ in lent:
            del names[name]


def _step_in_own_loop(
    loops: type,
    running: Callable[[], object],
    set_running: Callable[[object], None],
    swap_task: Callable[[object, object], object],
) -> None:
    """Make the loop of a callback the thread's running one while the callback runs.

    The program around may have a loop of its own: trio in guest mode stands in a callback of it, a
    ``trio.run`` in a notebook's cell even in one of its tasks. A thread has one current task, so
    that one steps aside meanwhile.

    It replaces a method of ``asyncio.Handle`` for the whole process; a callback of any other loop
    goes through it unchanged, at the price of one call and one comparison.

    Args:
        loops: the class of trio-asyncio's loops.
        running: asyncio's own reader of the running loop, taken before trio-asyncio replaced it.
        set_running: sets it.
        swap_task: makes a task a loop's current one, and returns the one that was.
    """
    run: Callable[[asyncio.Handle], None] = attrgetter("_run")(asyncio.Handle)

    @wraps(run)
    def run_in_own_loop(handle: asyncio.Handle) -> None:
        loop = _loop_of(handle)
        if not isinstance(loop, loops):
            run(handle)
            return
        host = running()
        task = None if host is None else swap_task(host, None)
        set_running(loop)
        try:
            run(handle)
        finally:
            set_running(host)
            if task is not None:
                swap_task(host, task)

    asyncio.Handle._run = run_in_own_loop  # type: ignore[method-assign,assignment]  # noqa: SLF001
