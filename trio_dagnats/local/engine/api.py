"""The engine's API over NATS: register, start, get (contract 9.1).

====================== ================================= ======================================
subject                request                           reply
====================== ================================= ======================================
api.workflows.register a definition                      ``{"status": "registered", "name"}``
api.runs.start         ``{"workflow": ..., "input"}``    ``{"run_id"}``: the start is *stored*
api.runs.get           a run's id as plain text          the snapshot, or ``{"error"}``
$SRV.PING.dagnats-api  anything                          that this service exists
====================== ================================= ======================================

What goes wrong is an ordinary reply with ``error`` in it, because that is how clients of the
DagNats engine know it. Its other endpoints are for handlers with a capability that this engine
refuses to register (``core.supported``).

The API does not touch runs. ``start`` stores an event on the run's history and answers; the run
comes into being when the engine reads it there, so a client that asks at once may find none.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import final

import trio
from pydantic_core import from_json

from trio_dagnats.errors import BrokerError, Conflict, TooLarge, UsageError, WireError
from trio_dagnats.local.engine.core.supported import (
    check_supported,
)
from trio_dagnats.local.engine.core.values.paths import printed, walk
from trio_dagnats.local.engine.core.values.schema import mismatch
from trio_dagnats.local.engine.starts import find_definition, store_start
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.names import BUCKET_DEFS, BUCKET_RUNS, run_key
from trio_dagnats.wire.run import WorkflowRun
from trio_dagnats.wire.text import compact

log = Log("trio_dagnats.local")

PING = "$SRV.PING.dagnats-api"
"""By the micro protocol of NATS; the engine's own start asks it whether it is alone."""
KEYS = "idempotency_keys"
"""Bucket with the run that an idempotency key has begun, for a day (``resources.BUCKETS``)."""
MOST_AT_ONCE = 1000
"""Requests that are answered at once. One beyond it gets no reply, and its client waits in vain for
its timeout.
"""

Answer = Callable[[bytes], Awaitable[dict[str, object]]]
"""From a request's body to a reply; ``UsageError``, ``WireError``, ``BrokerError`` are replies."""


@final
class Api:
    """Answers requests for as long as :meth:`run` runs.

    Made and run by ``engine._start``. Its only state is how many answers are in the making.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._open = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled.

        Ready (``task_status``) when the server has all subscriptions, so no request is missed
        from then on. Cancellation: answers in the making are dropped; their clients see no
        reply, and may ask again.
        """
        endpoints = {
            "api.workflows.register": self._register,
            "api.runs.start": self._start,
            "api.runs.get": self._get,
            PING: _ping,
        }
        async with trio.open_nursery() as nursery:
            for subject, answer in endpoints.items():
                await nursery.start(self._serve, subject, answer)
            task_status.started()

    async def _serve(
        self,
        subject: str,
        answer: Answer,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer one subject's requests, each in a task of its own, so that a slow one delays none.

        A message without a reply subject wants no answer and gets no work done.
        """
        async with trio.open_nursery() as nursery:

            def take(message: Message | None) -> None:
                if message is not None and message.reply and self._open < MOST_AT_ONCE:
                    self._open += 1
                    nursery.start_soon(self._answer, answer, message)

            async with self._broker.listen(subject, take):
                task_status.started()
                await trio.sleep_forever()

    async def _answer(self, answer: Answer, message: Message) -> None:
        """Answer one request; never raises what is the request's fault or the connection's.

        An answer that is too large for a message is replaced by that fact. An error while the reply
        is sent concerns one client, who asks again; it must not end the engine.
        """
        try:
            try:
                reply = compact(await answer(message.body))
            except (UsageError, WireError, BrokerError) as error:
                reply = compact({"error": str(error)})
            try:
                await self._broker.publish(message.reply, reply)
            except TooLarge as error:
                await self._broker.publish(message.reply, compact({"error": str(error)}))
        except (UsageError, BrokerError) as error:  # one answer, and nobody else's trouble
            log.warning("an answer to %s was not sent: %s", message.subject, error)
        finally:
            self._open -= 1

    async def _register(self, body: bytes) -> dict[str, object]:
        """Store a definition under its name, in place of an earlier one.

        Runs that go on keep the one that they have begun with. What cannot be done is refused here,
        before anything is stored.
        """
        definition = WorkflowDef.read(body)
        check_supported(definition)
        await self._broker.kv_put(
            BUCKET_DEFS, definition.name, definition.to_bytes(), deadline=deadline_in()
        )
        return {"status": "registered", "name": definition.name}

    async def _start(self, body: bytes) -> dict[str, object]:
        """Check everything that can be checked, then store the start.

        A refusal here costs nothing; the same mistake found later would be a failed run. The answer
        is sent when the event is stored: from then on the run begins whatever dies.
        """
        name, given = _read_start(body)
        definition = await find_definition(self._broker, name)
        if definition is None:
            raise UsageError(f"workflow {name!r} is not registered")
        problem = mismatch(definition.input_schema, given)
        if problem:
            raise UsageError(f"the input does not fit workflow {name!r}: {problem}")
        run_id = secrets.token_hex(16)
        if definition.idempotency_key and given is not None:
            run_id = await self._claim(definition, given, run_id)
        await self._store_start(run_id, definition, given)
        return {"run_id": run_id}

    async def _claim(self, definition: WorkflowDef, given: object, run_id: str) -> str:
        """Return the run of an idempotency key: the first one's, or else this.

        The key is written only if nobody has (``expect=0``); who comes second reads whose it is.
        The third way, an entry that was there and is not any more, is a key that has just run
        out.
        """
        path = definition.idempotency_key
        found, value = walk(path, given)
        if not found:
            raise UsageError(f"the input has nothing at {path!r}, the idempotency key's place")
        name = f"{definition.name}.{printed(value)}"
        key = hashlib.sha256(name.encode()).hexdigest()
        try:
            await self._broker.kv_put(KEYS, key, run_id.encode(), expect=0, deadline=deadline_in())
        except Conflict:
            entry = await self._broker.kv_get(KEYS, key, deadline=deadline_in())
            if entry is not None:
                return entry.value.decode(errors="replace")
            await self._broker.kv_put(KEYS, key, run_id.encode(), deadline=deadline_in())
        return run_id

    async def _store_start(self, run_id: str, definition: WorkflowDef, given: object) -> None:
        """Begin a run, unless it has begun: with a key, an earlier request may have done that.

        The key is written first, so that two requests at once begin one run, and one that dies in
        between is made good by the next. The DagNats engine writes it last, and begins two.
        """
        payload: dict[str, object] = {"workflow_def": definition.to_wire()}
        if given is not None:
            payload["input"] = given
        once = bool(definition.idempotency_key)
        await store_start(self._broker, run_id, payload, only_once=once)

    async def _get(self, body: bytes) -> dict[str, object]:
        """Read a run as the engine has stored it, without the book: readers know no such key."""
        run_id = body.decode(errors="replace").strip()
        if not run_id:
            raise UsageError("api.runs.get wants a run id as plain text")
        entry = await self._broker.kv_get(BUCKET_RUNS, run_key(run_id), deadline=deadline_in())
        if entry is None:
            return {"error": "workflow run not found"}
        return {**WorkflowRun.read(entry.value).to_wire(), "trace_id": ""}


async def _ping(_body: bytes) -> dict[str, object]:
    """Answer as a service of the engine's name would; the version is the wire's, not ours."""
    return {
        "type": "io.nats.micro.v1.ping_response",
        "name": "dagnats-api",
        "id": "trio-dagnats-local",
        "version": "0.0.12",
        "metadata": {"engine": "trio-dagnats local engine"},
    }


def _read_start(body: bytes) -> tuple[str, object]:
    """Read a request to start a run; without an input it is None.

    Raises:
        UsageError: it is no JSON object with a workflow's name.
    """
    try:
        found = from_json(body)
    except ValueError as error:
        raise UsageError(f"api.runs.start wants JSON: {error}") from error
    name = found.get("workflow") if isinstance(found, dict) else None
    if not isinstance(name, str) or not name:
        raise UsageError('api.runs.start wants {"workflow": <name>, "input": <any>}')
    return name, found.get("input")
