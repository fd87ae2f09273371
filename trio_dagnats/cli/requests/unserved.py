"""Tasks that nobody serves: a step that waits for ever says nothing by itself.

Called beside ``start --wait`` (once) and by ``dev`` (for each workflow that is registered there
and each run that starts). It says what is, and stops nothing: a worker may be on its way.
"""

from typing import final

import trio

from trio_dagnats.cli.output.screen import Screen
from trio_dagnats.client import Client, Unserved, WorkflowDef
from trio_dagnats.errors import BrokerError

AFTER = 2.0
"""Seconds that a worker has to come.

A worker that is started in the same moment must not be missed in a warning.
"""


@final
class Lookout:
    """Warns of tasks that nobody serves, once each until somebody does.

    Called by any number of tasks at once: of several that look at one workflow one waits, the
    others return at once (``_waiting``). ``_warned`` holds task and group; an entry goes when
    somebody serves it, so that its loss is told again.
    """

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client = client
        self._teller = screen
        self._warned: set[tuple[str, str]] = set()
        self._waiting: set[str] = set()

    async def check(self, definition: WorkflowDef) -> None:
        """Wait two seconds, then name the workflow's tasks that nobody serves.

        Cancellation: nothing is said. A server that does not answer is no reason to say
        something, either.
        """
        if definition.name in self._waiting:
            return
        self._waiting.add(definition.name)
        await trio.sleep(AFTER)
        self._waiting.discard(definition.name)
        try:
            missing = await self._client.unserved(definition)
        except BrokerError:
            return  # a remark is not worth an error; the connection has its own
        needed = {(step.task, step.worker_group) for step in definition.steps}
        self._warned -= needed - {(found.task, found.group) for found in missing}
        for found in missing:
            if (found.task, found.group) not in self._warned:
                self._warned.add((found.task, found.group))
                self._teller.warn(warning(definition.name, found))


def warning(workflow: str, found: Unserved) -> str:
    """Say what nobody serves, and what follows from that."""
    group = f" in the group {found.group!r}" if found.group else ""
    steps = ", ".join(map(repr, found.steps))
    return (
        f"nobody serves the task {found.task!r}{group} (step {steps} of workflow {workflow!r}): "
        "its runs wait until a worker does"
    )
