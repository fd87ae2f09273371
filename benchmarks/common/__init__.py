"""What the programs of this folder share: tasks and histories, worker processes, figures."""

from benchmarks.common.children import (
    LATE,
    ROOT,
    Child,
    Said,
    child,
    employ,
    serve_until_killed,
    tell,
)
from benchmarks.common.figures import Figure, Report, Sample, Table, arguments, percentile
from benchmarks.common.process import living_tasks, memory_mib
from benchmarks.common.streams import (
    AT_ONCE,
    OUTCOMES,
    SOON,
    count,
    events,
    left_in_queue,
    outcomes,
    preload,
    prepare,
    put_task,
    records,
    until_empty,
)

__all__ = [
    "AT_ONCE",
    "LATE",
    "OUTCOMES",
    "ROOT",
    "SOON",
    "Child",
    "Figure",
    "Report",
    "Said",
    "Sample",
    "Table",
    "arguments",
    "child",
    "count",
    "employ",
    "events",
    "left_in_queue",
    "living_tasks",
    "memory_mib",
    "outcomes",
    "percentile",
    "preload",
    "prepare",
    "put_task",
    "records",
    "serve_until_killed",
    "tell",
    "until_empty",
]
