"""The engine's API over NATS: register, start, get (contract 9.1)."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import final

import trio
from pydantic_core import from_json

from trio_dagnats.errors import BrokerError, Conflict, TooLarge, UsageError, WireError
from trio_dagnats.local.engine.core.paths import printed, walk
from trio_dagnats.local.engine.core.schema import mismatch
from trio_dagnats.local.engine.core.supported import (
    check_supported,
)
from trio_dagnats.local.engine.starts import find_definition, store_start
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import soon
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire.names import BUCKET_DEFS, BUCKET_RUNS, run_key
from trio_dagnats.wire.run import WorkflowRun
from trio_dagnats.wire.text import compact
from trio_dagnats.wire.workflow import WorkflowDef

log = Log("trio_dagnats.local")

PING = "$SRV.PING.dagnats-api"
KEYS = "idempotency_keys"
MOST_AT_ONCE = 1000

Answer = Callable[[bytes], Awaitable[dict[str, object]]]


@final
class Api:
    """Answers requests for as long as :meth:`run` runs."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._open = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
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
        async with trio.open_nursery() as nursery:

            def take(message: Message | None) -> None:
                if message is not None and message.reply and self._open < MOST_AT_ONCE:
                    self._open += 1
                    nursery.start_soon(self._answer, answer, message)

            async with self._broker.listen(subject, take):
                task_status.started()
                await trio.sleep_forever()

    async def _answer(self, answer: Answer, message: Message) -> None:
        try:
            try:
                reply = compact(await answer(message.body))
            except (UsageError, WireError, BrokerError) as error:
                reply = compact({"error": str(error)})
            except Exception as error:  # the border to whoever asks: the engine goes on
                log.error("%s could not be answered", message.subject, exc_info=error)  # noqa: TRY400
                reply = compact({"error": f"{type(error).__name__}: {error}"})
            try:
                await self._broker.publish(message.reply, reply)
            except TooLarge as error:
                await self._broker.publish(message.reply, compact({"error": str(error)}))
        except (UsageError, BrokerError) as error:  # one answer, and nobody else's trouble
            log.warning("an answer to %s was not sent: %s", message.subject, error)
        finally:
            self._open -= 1

    async def _register(self, body: bytes) -> dict[str, object]:
        definition = WorkflowDef.read(body)
        check_supported(definition)
        await self._broker.kv_put(
            BUCKET_DEFS, definition.name, definition.to_bytes(), deadline=soon()
        )
        return {"status": "registered", "name": definition.name}

    async def _start(self, body: bytes) -> dict[str, object]:
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
        """Return the run of an idempotency key: the first one's, or else this."""
        path = definition.idempotency_key
        found, value = walk(path, given)
        if not found:
            raise UsageError(f"the input has nothing at {path!r}, the idempotency key's place")
        name = f"{definition.name}.{printed(value)}"
        key = hashlib.sha256(name.encode()).hexdigest()
        try:
            await self._broker.kv_put(KEYS, key, run_id.encode(), expect=0, deadline=soon())
        except Conflict:
            entry = await self._broker.kv_get(KEYS, key, deadline=soon())
            if entry is not None:
                return entry.value.decode(errors="replace")
            await self._broker.kv_put(KEYS, key, run_id.encode(), deadline=soon())
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
        run_id = body.decode(errors="replace").strip()
        if not run_id:
            raise UsageError("api.runs.get wants a run id as plain text")
        entry = await self._broker.kv_get(BUCKET_RUNS, run_key(run_id), deadline=soon())
        if entry is None:
            return {"error": "workflow run not found"}
        return {**WorkflowRun.read(entry.value).to_wire(), "trace_id": ""}


async def _ping(_body: bytes) -> dict[str, object]:
    return {
        "type": "io.nats.micro.v1.ping_response",
        "name": "dagnats-api",
        "id": "trio-dagnats-local",
        "version": "0.0.12",
        "metadata": {"engine": "trio-dagnats local engine"},
    }


def _read_start(body: bytes) -> tuple[str, object]:
    try:
        found = from_json(body)
    except ValueError as error:
        raise UsageError(f"api.runs.start wants JSON: {error}") from error
    name = found.get("workflow") if isinstance(found, dict) else None
    if not isinstance(name, str) or not name:
        raise UsageError('api.runs.start wants {"workflow": <name>, "input": <any>}')
    return name, found.get("input")
