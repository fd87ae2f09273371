"""A side that is looked at: what its layers do is counted, or sampled by a profiler.

``python -m benchmarks.sides.watched count|calls|profile MODULE ...`` runs the side's program and
prints what was found as a last line. Whatever is counted is counted at a border that does not
belong to this package (the socket, trio, asyncio, the garbage collector, the interpreter), so that
it can be counted for every side and does not change with the package's own modules.
"""

import asyncio
import asyncio.base_events
import gc
import inspect
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import FrameType
from unittest.mock import patch

import trio
from pyinstrument import Profiler
from pyinstrument.frame import Frame

Found = dict[str, float]
INTERVAL = 0.0005
"""Seconds between two samples."""
BUILT_IN = {
    "epoll.poll": "waiting",
    "socket.send": "socket",
    "socket.recv": "socket",
    "socket.recv_into": "socket",
    "socket.sendmsg": "socket",
}
OURS = "trio_dagnats/"
PACKAGES = ("trio_asyncio", "trio", "nats", "asyncio", "pydantic", "json", "benchmarks")


class Steps(trio.abc.Instrument):
    """Counts what trio does."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        """Count a step of a task."""
        self._counts["trio steps"] += 1

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        """Count that a task was made runnable."""
        self._counts["trio reschedules"] += 1

    def task_spawned(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        """Count a new task."""
        self._counts["trio tasks"] += 1

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        """Count a turn of the loop."""
        self._counts["trio turns"] += 1


@contextmanager
def socket_counted(counts: Counter[str]) -> Iterator[None]:
    """Count what goes through the socket, and NATS's messages in it."""
    receive, send, send_pieces = socket.socket.recv, socket.socket.send, socket.socket.sendmsg

    def written(data: bytes) -> None:
        counts["flushes"] += 1
        counts["frames written"] += data.count(b"PUB ")
        counts["bytes written"] += len(data)

    def counted_send(self: socket.socket, data: bytes, *flags: int) -> int:
        taken = send(self, data, *flags)
        written(bytes(data[:taken]))
        return taken

    def counted_send_pieces(self: socket.socket, pieces: Iterable[bytes]) -> int:
        data = [*pieces]
        taken = send_pieces(self, data)
        written(b"".join(data)[:taken])
        return taken

    def counted_receive(self: socket.socket, size: int, *flags: int) -> bytes:
        data = receive(self, size, *flags)
        counts["socket reads"] += 1
        counts["messages read"] += data.count(b"MSG ")
        counts["bytes read"] += len(data)
        return data

    with (
        patch.object(socket.socket, "send", counted_send),
        patch.object(socket.socket, "sendmsg", counted_send_pieces),  # asyncio's, from 3.12 on
        patch.object(socket.socket, "recv", counted_receive),
    ):
        yield


@contextmanager
def calls_counted(counts: Counter[str], owner: type, name: str, what: str) -> Iterator[None]:
    """Count the calls of a method."""
    original = getattr(owner, name)

    def counted(*args: object, **more: object) -> object:
        counts[what] += 1
        return original(*args, **more)

    with patch.object(owner, name, counted):
        yield


@contextmanager
def collector_counted(counts: Counter[str]) -> Iterator[None]:
    """Count the garbage collector's runs, and its microseconds."""
    begun = 0.0

    def heard(phase: str, info: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            counts["gc runs"] += 1
            counts["gc us"] += round((time.perf_counter() - begun) * 1e6)

    gc.callbacks.append(heard)
    try:
        yield
    finally:
        gc.callbacks.remove(heard)


def turns_of(module: str) -> tuple[type, str]:
    """Return what runs asyncio's callbacks; importing trio-asyncio changes asyncio for good."""
    if module.endswith("plain"):
        return asyncio.base_events.BaseEventLoop, "_run_once"
    from trio_dagnats.transport import trio_asyncio  # noqa: PLC0415 - see above

    return trio_asyncio.TrioEventLoop, "_main_loop_one"


def count(module: str, run: Callable[[], None]) -> Found:
    """Count what the layers do while a side runs."""
    counts: Counter[str] = Counter()
    with (
        socket_counted(counts),
        collector_counted(counts),
        calls_counted(counts, *turns_of(module), "asyncio turns"),
        calls_counted(counts, asyncio.Handle, "_run", "asyncio callbacks"),
        patch.object(trio, "run", partial(trio.run, instruments=[Steps(counts)])),
    ):
        run()
    return dict(counts)


def calls(_module: str, run: Callable[[], None]) -> Found:
    """Count the Python calls while a side runs, and the resumptions of coroutines beside them."""
    counts: Counter[str] = Counter()
    suspended = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            code = frame.f_code
            # A frame that can be suspended says by its RESUME whether it is at its beginning.
            again = code.co_flags & suspended and code.co_code[frame.f_lasti + 1] & 3
            counts["resumptions" if again else "calls"] += 1

    sys.setprofile(called)
    try:
        run()
    finally:
        sys.setprofile(None)
    return dict(counts)


def layer(frame: Frame, around: str) -> str:
    """Return the layer that a frame belongs to; what is built in belongs to the one around it."""
    path = frame.file_path or ""
    if path == "<built-in>":
        return BUILT_IN.get(frame.function, around)
    if OURS in path:
        return f"ours: {path.rpartition(OURS)[2].partition('/')[0].removesuffix('.py')}"
    parts = path.split("/")
    return next((package for package in PACKAGES if package in parts), around)


def own_times(frame: Frame, around: str, layers: Counter[str], functions: Counter[str]) -> None:
    """Add up the milliseconds that were spent in frames themselves."""
    where = layer(frame, around)
    for child in frame.children:
        if child.function != "[self]":
            own_times(child, where, layers, functions)
    inner = sum(child.time for child in frame.children if child.function != "[self]")
    own = round((frame.time - inner) * 1e6)
    layers[where] += own
    functions[f"{where}: {(frame.file_path or '').rpartition('/')[2]} {frame.function}"] += own


def profile(_module: str, run: Callable[[], None]) -> Found:
    """Return the share of the busy time that each layer and function had."""
    profiler = Profiler(interval=INTERVAL, async_mode="disabled")
    profiler.start()
    run()
    root = profiler.stop().root_frame(trim_stem=False)
    assert root is not None
    layers: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    own_times(root, "else", layers, functions)
    busy = layers.total() - layers.pop("waiting", 0)
    parts = [*layers.items(), *((n, t) for n, t in functions.items() if n[:7] != "waiting")]
    return {name: part / busy * 100 for name, part in parts}


def main() -> None:
    """Run a side and print what was found."""
    mode, module = sys.argv[1:3]
    del sys.argv[1:3]
    run: Callable[[], None] = import_module(module).main
    watch = {"count": count, "calls": calls, "profile": profile}[mode]
    print(json.dumps(watch(module, run)))


if __name__ == "__main__":
    main()
