"""The client: ``async with Client(url) as client``."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import Self, final

import trio

from trio_dagnats.client.api import ask
from trio_dagnats.client.builder import Workflow
from trio_dagnats.client.keys import with_key
from trio_dagnats.client.run import Run
from trio_dagnats.client.schedule import schedule
from trio_dagnats.client.stored import (
    Unserved,
    filters_of_workers,
    find_workflow,
    readable,
    stored_ids,
    stored_runs,
    unserved,
)
from trio_dagnats.client.workers import WorkerAttempts, ask_workers
from trio_dagnats.errors import Missing, UsageError, WireError
from trio_dagnats.transport import ConnectOptions, NatsSource, open_broker
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire.data import to_output
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import HistoryEvent, parse_event
from trio_dagnats.wire.names import (
    BUCKET_DEFS,
    BUCKET_WORKERS,
    check_event_name,
    check_run_id,
    check_worker_id,
    check_workflow_name,
    event_subject,
    history_subject,
)
from trio_dagnats.wire.registration import WorkerRegistration, is_live
from trio_dagnats.wire.run import RunStatus, WorkflowRun

WATCH_BUFFER = 10_000


@final
class Client:
    """Talks to whatever engine serves a NATS server: ``async with Client(url) as client``.

    Usable by any number of tasks at once, inside its block. Cancelling a call leaves the
    connection as it is; a request that was sent may be carried out all the same.

    Args:
        nats: a URL, several, a connected nats-py client, or a broker.
        options: how to connect, for URLs.

    Raises:
        ConnectError: on entering: no usable server in time.
    """

    def __init__(self, nats: NatsSource, options: ConnectOptions | None = None) -> None:
        self._nats = nats
        self._options = options
        self._block: AbstractAsyncContextManager[Broker] | None = None
        self._open: Broker | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        if self._block is not None:
            raise UsageError("this client is open already; make another one")
        block = open_broker(self._nats, self._options)
        self._open = await block.__aenter__()
        self._block = block
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect; a connection that was given stays open."""
        assert self._block is not None
        block, self._block, self._open = self._block, None, None
        await block.__aexit__(kind, error, trace)

    async def register(
        self, workflow: Workflow | WorkflowDef | Mapping[str, object]
    ) -> WorkflowDef:
        """Register a workflow under its name, in place of an earlier one; return it.

        It is checked as a whole before it is sent, for what is wrong with it (an empty name, an
        unknown type of step, a step without a task) can end the process of the DagNats engine.

        Raises:
            UsageError: it is no workflow; the text names the place and the mistake.
            EngineError: there is no engine, or (``Refused``) it refused the workflow.
        """
        definition = _definition(workflow)
        await ask(self._broker, "api.workflows.register", definition.to_wire())
        return definition

    async def start(
        self,
        workflow_name: str,
        input: object = None,  # noqa: A002 - the word of the docs
        *,
        idempotency_key: str | None = None,
    ) -> Run:
        """Start a run of a registered workflow.

        Args:
            workflow_name: the name that it is registered under.
            input: anything that pydantic can write as JSON; None for none.
            idempotency_key: put into the input where the workflow's ``idempotency_key`` path says;
                a second start with the same key within 24 hours gives the first run.

        Raises:
            UsageError: the name is not legal, the input cannot be written, or the workflow has no
                key path.
            EngineError: the engine refused, or there is none.
        """
        check_workflow_name(workflow_name)
        if idempotency_key is not None:
            definition = await find_workflow(self._broker, workflow_name)
            input = with_key(definition, input, idempotency_key)  # noqa: A001
        request: dict[str, object] = {"workflow": workflow_name}
        if input is not None:
            request["input"] = input
        reply = await ask(self._broker, "api.runs.start", request)
        return self.run(str(reply["run_id"]))

    async def schedule(
        self,
        workflow_name: str,
        input: object = None,  # noqa: A002 - as in start
        *,
        at: datetime,
    ) -> Run:
        """Let a run of a registered workflow begin at a time; :meth:`Run.cancel` takes it back.

        Args:
            workflow_name: the name that it is registered under.
            input: anything that pydantic can write as JSON; None for none.
            at: when, with a time zone; at most 365 days ahead.

        Raises:
            UsageError: the name is not legal, the input cannot be written, or the time is none to
                begin at.
            EngineError: no such workflow, or the engine begins no scheduled runs (the DagNats
                engine v0.0.12 does not).
            NotStored: not acknowledged in time.
        """
        await find_workflow(self._broker, check_workflow_name(workflow_name))
        return self.run(await schedule(self._broker, workflow_name, input, at))

    async def publish_event(self, name: str, data: object) -> None:
        """Publish an event, for all runs that wait for one of that name and such content.

        A run that begins to wait later does not get it.

        Args:
            name: what ``wait_for_event`` steps call it; words joined by dots.
            data: a JSON object, or anything that pydantic writes as one.

        Raises:
            UsageError: the name is not legal, or the data is no JSON object: an empty body would
                end the process of the DagNats engine.
            NotStored: not acknowledged in time.
        """
        subject, body = event_subject(check_event_name(name)), to_output(data)
        if not body.lstrip().startswith(b"{"):
            raise UsageError(f"the data of event {name!r} must be a JSON object, not {data!r}")
        await self._broker.store(subject, body, deadline=deadline_in())

    def run(self, run_id: str) -> Run:
        """Return a handle of a known run; nothing is asked of the server.

        Raises:
            UsageError: it cannot be a run id.
        """
        return Run(self._broker, check_run_id(run_id))

    async def runs(
        self, workflow_name: str | None = None, status: RunStatus | None = None
    ) -> list[WorkflowRun]:
        """List the stored runs, oldest first; all of them, or a workflow's, or of one status.

        Reads every stored run.

        Raises:
            Missing: no engine has set this server up.
            NotStored: the server did not answer in time.
        """
        return await stored_runs(self._broker, workflow_name, status)

    async def find(self, start: str) -> list[str]:
        """Return the ids of the stored runs that begin so, in the order of the ids.

        A whole id is looked up at once; for the beginning of one, every stored run is read.

        Raises:
            UsageError: no run id begins so.
            Missing: no engine has set this server up.
            NotStored: the server did not answer in time.
        """
        if await self.run(start).snapshot() is not None:
            return [start]
        return await stored_ids(self._broker, start)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[trio.MemoryReceiveChannel[HistoryEvent]]:
        """Listen to the events of all runs, from now on, for a block.

        For eyes, not for bookkeeping: what comes while the connection is down, or while 10 000
        events wait unread, is lost. :meth:`Run.events` loses nothing.
        """
        send, receive = trio.open_memory_channel[HistoryEvent](WATCH_BUFFER)

        def hear(message: Message | None) -> None:
            if message is not None:
                with suppress(trio.WouldBlock, WireError):
                    send.send_nowait(parse_event(message.body))

        async with self._broker.listen(history_subject(">"), hear):
            with send, receive:
                yield receive

    async def workflows(self) -> list[WorkflowDef]:
        """List the registered workflows by name.

        Raises:
            Missing: no engine has set this server up.
            NotStored: the server did not answer in time.
        """
        entries = await self._broker.kv_entries(BUCKET_DEFS, deadline=deadline_in())
        return readable(entries, WorkflowDef.read)

    async def workers(self) -> list[WorkerRegistration]:
        """List the workers that are alive: seen within 60 seconds by the server's clock.

        Raises:
            NotStored: the server did not answer in time.
        """
        try:
            entries = await self._broker.kv_entries(BUCKET_WORKERS, deadline=deadline_in())
        except Missing:
            return []
        now_ns = self._broker.time_ns()
        live = [entry for entry in entries if is_live(entry.time_ns, now_ns)]
        return readable(live, WorkerRegistration.from_bytes)

    async def unserved(self, definition: WorkflowDef) -> list[Unserved]:
        """Return the tasks of a workflow that no worker serves: its runs wait for one.

        Raises:
            NotStored: the server did not answer in time.
        """
        filters = await filters_of_workers(self._broker)
        return unserved(definition, await self.workers(), filters)

    async def attempts(
        self, worker_id: str | None = None, *, timeout: float = 2.0
    ) -> list[WorkerAttempts]:
        """Ask the workers how every attempt stands: its age, its lease, and where its tasks are.

        Workers are found as NATS micro services; those of the directory are waited for.

        Args:
            worker_id: ask this worker only.
            timeout: seconds; a worker that has not told all by then has ``attempts`` None.

        Raises:
            UsageError: no worker can have this id.
            NotStored: the server did not answer in time.
        """
        only = "" if worker_id is None else check_worker_id(worker_id)
        return await ask_workers(self._broker, await self.workers(), only, timeout)

    @property
    def _broker(self) -> Broker:
        if self._open is None:
            raise UsageError("this client is not open; use it inside `async with Client(...)`")
        return self._open


def _definition(workflow: Workflow | WorkflowDef | Mapping[str, object]) -> WorkflowDef:
    if isinstance(workflow, WorkflowDef):
        return workflow
    return workflow.build() if isinstance(workflow, Workflow) else WorkflowDef.read(workflow)
