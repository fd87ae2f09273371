"""Runs that begin at a time."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, Workflow
from trio_dagnats.client import RunStatus
from trio_dagnats.errors import EngineError, UsageError
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.testing import Harness
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.text import NS


def napping() -> Workflow:
    workflow = Workflow("nap", input_schema={"type": "number"})
    workflow.sleep("sleep", 0.1)
    return workflow


def after(broker: Broker, seconds: float) -> datetime:
    """Return a time so long after the server's now, in some zone."""
    zone = timezone(timedelta(hours=-5))
    return datetime.fromtimestamp(broker.time_ns() / NS, zone) + timedelta(seconds=seconds)


async def test_a_scheduled_run_begins_at_its_time_and_is_waited_for_until_then(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client:
        await client.register(napping())
        begun = broker.time_ns()

        run = await client.schedule("nap", 5, at=after(broker, 3600))
        ended = await run.wait()

        assert (ended.status, ended.input) == (RunStatus.COMPLETED, 5)
        assert 3600 <= (broker.time_ns() - begun) / NS < 3602
        assert await broker.kv_entries("scheduled_runs", deadline=trio.current_time() + 5) == []


async def test_a_scheduled_run_begins_though_the_engine_was_not_there_at_its_time(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    async with Client(broker) as client:
        async with LocalEngine(broker):
            await client.register(napping())
            run = await client.schedule("nap", 5, at=after(broker, 60))
            await trio.sleep(1)
        await trio.sleep(100)
        async with LocalEngine(broker):
            assert (await run.wait(timeout=30)).status is RunStatus.COMPLETED


async def test_a_scheduled_run_that_is_cancelled_does_not_begin(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client:
        await client.register(napping())
        run = await client.schedule("nap", 5, at=after(broker, 60))

        await run.cancel()
        await trio.sleep(100)

        assert await client.runs() == []
        with pytest.raises(EngineError, match="is not stored"):
            await run.wait()


async def test_a_scheduled_run_of_a_workflow_that_is_gone_fails_and_says_so(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client:
        await client.register(napping())
        run = await client.schedule("nap", 5, at=after(broker, 60))
        await broker.kv_delete("workflow_defs", "nap", deadline=trio.current_time() + 5)

        ended = await run.wait()

        assert ended.status is RunStatus.FAILED
        assert "'nap' is not registered" in ended.failed_step()[1]


@pytest.mark.parametrize("seconds", [-1, 366 * 86_400])
async def test_a_run_cannot_be_scheduled_for_the_past_or_too_far_ahead(
    autojump_clock: MockClock, harness: Harness, seconds: float
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(napping())

        with pytest.raises(UsageError, match="in the future, at most 365 days"):
            await client.schedule("nap", at=after(harness.broker, seconds))


async def test_a_time_without_a_zone_and_an_unknown_workflow_are_refused(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        with pytest.raises(EngineError, match="'nap' is not registered"):
            await client.schedule("nap", at=after(harness.broker, 60))
        await client.register(napping())
        with pytest.raises(UsageError, match="time zone"):
            await client.schedule("nap", at=datetime(2036, 1, 1))  # noqa: DTZ001 - the mistake


async def test_a_scheduled_run_begins_on_a_real_server() -> None:
    async with Server() as server, LocalEngine(server.url), Client(server.url) as client:
        await client.register(napping())

        run = await client.schedule("nap", 5, at=datetime.now(UTC) + timedelta(seconds=0.5))

        assert (await run.wait(timeout=60)).status is RunStatus.COMPLETED


@pytest.mark.live
async def test_an_engine_that_begins_no_scheduled_runs_is_not_given_any(live_url: str) -> None:
    async with open_broker(live_url) as broker, Client(broker) as client:
        await client.register(napping())

        with pytest.raises(EngineError, match="never begin it"):
            await client.schedule("nap", 5, at=after(broker, 60))
