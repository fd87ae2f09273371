"""Tasks that nobody serves: a step that waits for ever says nothing by itself."""

from collections.abc import Iterable
from typing import final

import trio

from trio_dagnats.cli.screen import Screen
from trio_dagnats.client import Client, WorkflowDef
from trio_dagnats.errors import BrokerError
from trio_dagnats.wire.registration import WorkerRegistration

AFTER = 2.0
"""Seconds that a worker has to come."""


def unserved(
    definition: WorkflowDef, workers: Iterable[WorkerRegistration]
) -> dict[str, list[str]]:
    """Return the tasks of a workflow that no worker serves, and the steps that need them."""
    served = {task for worker in workers for task in worker.task_types}
    found: dict[str, list[str]] = {}
    for step in definition.steps:
        if step.task and step.task not in served:
            found.setdefault(step.task, []).append(step.id)
    return found


@final
class Lookout:
    """Warns of tasks that nobody serves, once each until somebody does."""

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client = client
        self._teller = screen
        self._warned: set[str] = set()
        self._waiting: set[str] = set()

    async def check(self, definition: WorkflowDef) -> None:
        """Wait two seconds, then name the workflow's tasks that nobody serves."""
        if definition.name in self._waiting:
            return
        self._waiting.add(definition.name)
        await trio.sleep(AFTER)
        self._waiting.discard(definition.name)
        try:
            missing = unserved(definition, await self._client.workers())
        except BrokerError:
            return  # a remark is not worth an error; the connection has its own
        self._warned -= {step.task for step in definition.steps} - missing.keys()
        for task, steps in missing.items():
            if task not in self._warned:
                self._warned.add(task)
                self._teller.warn(
                    f"nobody serves the task {task!r} (step {', '.join(map(repr, steps))} of "
                    f"workflow {definition.name!r}): its runs wait until a worker does"
                )
