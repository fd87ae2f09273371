"""What a side is asked, and what it tells of itself. The standard library alone."""

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PAUSES = {"sleep": 0.01, "hold": 86_400.0}
"""Seconds for which the handlers of some kinds of work wait; the others do not."""
SETTLED, HALF, NEARLY_OVER = 0.1, 0.5, 0.9
"""Shares of the tasks: CPU is counted between the first and the last of them, when the queue is
neither filling the slots nor running dry."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a side shall do; ``tasks`` is 0 for serving until killed."""

    url: str
    task_type: str
    work: str
    tasks: int
    concurrency: int
    server_pid: int
    more: tuple[str, ...] = ()

    @property
    def task_types(self) -> list[str]:
        """The task types: this one, or as many as ``types=N`` says."""
        for word in self.more:
            name, _, number = word.partition("=")
            if name == "types":
                return [f"{self.task_type}{n}" for n in range(int(number))]
        return [self.task_type]

    @property
    def pause(self) -> float:
        """The seconds for which a handler waits."""
        return PAUSES.get(self.work, 0.0)

    @classmethod
    def from_arguments(cls) -> Self:
        """Read the command line."""
        url, task_type, work, tasks, concurrency, server_pid, *more = sys.argv[1:]
        return cls(url, task_type, work, int(tasks), int(concurrency), int(server_pid), tuple(more))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process's living threads have used."""
    found = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += int((thread / "schedstat").read_text().split()[0])
    return found / 1e9


def memory_mib() -> float:
    """Return the memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


def ready() -> None:
    """Say that tasks are taken from now on.

    What is loaded by then is none of the garbage collector's business any more: as ``trio-dagnats
    run`` has it, and as one would have it in a loop of one's own.
    """
    gc.collect()
    gc.freeze()
    print("ready", flush=True)


class Tally:
    """Counts the tasks that are done, and reads the meters on the way."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._done = 0
        self._marks: dict[int, list[float]] = {}
        for share in (SETTLED, HALF, NEARLY_OVER):
            self._marks.setdefault(max(1, int(asked.tasks * share)), []).append(share)
        self._traced = "trace" in asked.more
        self._tracer: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._client: dict[float, float] = {}
        self._server: dict[float, float] = {}
        self._mib: dict[float, float] = {}

    def done(self) -> bool:
        """Count a task; say whether it was the last one."""
        self._done += 1
        for share in self._marks.get(self._done, ()):
            self._client[share] = time.process_time()
            self._server[share] = cpu_seconds(self._asked.server_pid)
            self._mib[share] = memory_mib()
        if self._traced:
            self._trace()
        return self._done == self._asked.tasks

    def tell(self) -> None:
        """Print what was used."""
        counted = (NEARLY_OVER - SETTLED) * self._asked.tasks / 1e6
        found = {
            "client_us": (self._client[NEARLY_OVER] - self._client[SETTLED]) / counted,
            "server_us": (self._server[NEARLY_OVER] - self._server[SETTLED]) / counted,
            "early_mib": self._mib[SETTLED],
            "half_mib": self._mib[HALF],
            "end_mib": memory_mib(),
            "peak": self._peak(),
        }
        print(json.dumps(found))

    def _trace(self) -> None:
        """Begin to trace what Python allocates, before the last task but one has ended."""
        if self._done == self._asked.tasks - 1:
            import tracemalloc  # noqa: PLC0415 - the start-up is compared

            tracemalloc.start()
            self._tracer = tracemalloc.get_traced_memory

    def _peak(self) -> int:
        """Return the most bytes that the last task had at once; 0 without tracing."""
        return self._tracer()[1]
