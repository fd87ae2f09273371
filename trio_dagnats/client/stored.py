"""What stands in an engine's buckets: runs, definitions, and what workers have left there.

Everything here reads, and asks no engine. Buckets are read as a whole where a list is wanted, so
these calls grow with what is stored; they are for people and tools, not for a hot path.

Anybody may write into these buckets. One entry that cannot be read is left out with a line in the
log and never hides the others (:func:`readable`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, final

from trio_dagnats.client.timeline import time_of
from trio_dagnats.errors import EngineError, Missing, UsageError, WireError
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Entry
from trio_dagnats.wire.definitions.difference import Difference, differences
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.names import BUCKET_DEFS, BUCKET_RUNS, TASK_QUEUES, filter_subject, run_key
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.run import RunStatus, WorkflowRun

log = Log("trio_dagnats.client")

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Unserved:
    """A task type that no worker serves, in a group or in none, and the steps that need it."""

    task: str
    group: str
    steps: tuple[str, ...]


async def stored_runs(
    broker: Broker, workflow_name: str | None, status: RunStatus | None
) -> list[WorkflowRun]:
    """Read the stored runs, oldest first; see ``Client.runs``."""
    entries = await broker.kv_entries(BUCKET_RUNS, run_key(""), deadline=deadline_in())
    wanted = [
        run
        for run in readable(entries, WorkflowRun.read)
        if workflow_name in {None, run.workflow_id} and status in {None, run.status}
    ]
    return sorted(wanted, key=lambda run: time_of(run.created_at) or 0)


def readable(entries: Iterable[Entry], read: Callable[[bytes], T]) -> list[T]:
    """Read entries; one that cannot be read hides none of the others, and is told to the log."""
    found: list[T] = []
    for entry in entries:
        try:
            found.append(read(entry.value))
        except (UsageError, WireError) as error:
            log.warning("the entry %r is left out: %s", entry.key, error)
    return found


async def stored_ids(broker: Broker, start: str) -> list[str]:
    """Return the ids of the stored runs that begin so; see ``Client.find``.

    Only keys matter here, but the server gives the values with them.
    """
    prefix = run_key("")
    entries = await broker.kv_entries(BUCKET_RUNS, prefix, deadline=deadline_in())
    ids = [entry.key.removeprefix(prefix) for entry in entries]
    return [run_id for run_id in ids if run_id.startswith(start)]


async def find_workflow(broker: Broker, name: str) -> WorkflowDef:
    """Return a registered workflow.

    Called before a key or a time is used, so that a slip in the name is told here.

    Raises:
        EngineError: there is none of that name.
    """
    entry = await broker.kv_get(BUCKET_DEFS, name, deadline=deadline_in())
    if entry is None:
        raise EngineError(
            f"workflow {name!r} is not registered; `trio-dagnats register FILE_OR_MODULE` or "
            "`await client.register(workflow)` does it"
        )
    return WorkflowDef.read(entry.value)


async def changes(broker: Broker, definition: WorkflowDef) -> list[Difference] | None:
    """Return what registering a workflow would change; None if there is none of its name.

    Raises:
        Missing: no engine has set this server up.
        NotStored: the server did not answer in time.
    """
    entry = await broker.kv_get(BUCKET_DEFS, definition.name, deadline=deadline_in())
    return None if entry is None else differences(entry.value, definition)


async def filters_of_workers(broker: Broker) -> set[str]:
    """Return which subjects the workers' durables have, those of dead workers included.

    They show groups, which the directory does not; none is there before a worker ever was.
    """
    try:
        durables = await broker.consumers(TASK_QUEUES, deadline=deadline_in())
    except Missing:
        return set()
    return {found.filter_subject for found in durables}


def unserved(
    definition: WorkflowDef, workers: Iterable[WorkerRegistration], filters: set[str]
) -> list[Unserved]:
    """Return what nobody serves. Pure; ``filters`` as :func:`filters_of_workers` returns them.

    The directory does not say groups. A type that a live worker has counts as served in a group if
    there is a durable for it, or for the type as a whole.
    """
    served = {task for worker in workers for task in worker.task_types}
    steps: dict[tuple[str, str], list[str]] = {}
    for step in definition.steps:
        key = (step.task, step.worker_group)
        if step.task and not (step.task in served and _reaches(*key, filters)):
            steps.setdefault(key, []).append(step.id)
    return [Unserved(task, group, tuple(ids)) for (task, group), ids in steps.items()]


def _reaches(task: str, group: str, filters: set[str]) -> bool:
    """Say whether a worker of a task type would get it in this group, as far as can be seen."""
    whole = filter_subject(task)
    if whole in filters or filter_subject(task, group) in filters:
        return True
    # Without any durable of the type, its worker reads it in some way that is not ours to judge.
    return not any(found.startswith(whole.removesuffix(">")) for found in filters)
