"""Singletons of the local engine: who gets the lock, who keeps it, and when it is free again."""

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, Run, Workflow
from trio_dagnats.client import RunStatus
from trio_dagnats.errors import UsageError
from trio_dagnats.local import LocalEngine
from trio_dagnats.local.engine.locks import Locks, lock_key
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import Broker


def nap(**options: object) -> Workflow:
    workflow = Workflow("nap", **options)  # type: ignore[arg-type]  # options of workflows
    workflow.sleep("sleep", 10)
    return workflow


async def start_all(client: Client, inputs: list[object]) -> list[Run]:
    """Start runs at once."""
    found: list[Run] = []

    async def start(given: object) -> None:
        found.append(await client.start("nap", given))

    async with trio.open_nursery() as nursery:
        for given in inputs:
            nursery.start_soon(start, given)
    return found


async def test_of_many_starts_at_once_one_run_goes_on(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(nap(singleton="skip"))

        runs = await start_all(client, [None] * 20)

        ended = Counter([(await run.wait(timeout=60)).status for run in runs])
        assert ended == {RunStatus.COMPLETED: 1, RunStatus.CANCELLED: 19}


async def test_each_value_of_the_key_has_a_run_of_its_own(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(nap(singleton="skip", singleton_key="who"))

        runs = await start_all(client, [{"who": who} for who in ("Ada", "Grace", "Ada", 'x "y"')])

        ended = Counter([(await run.wait(timeout=60)).status for run in runs])
        assert ended == {RunStatus.COMPLETED: 3, RunStatus.CANCELLED: 1}


async def test_when_the_run_has_ended_the_next_one_can_start(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(nap(singleton="skip"))
        first = await client.start("nap")
        await trio.sleep(1)
        await first.cancel()
        await first.wait(timeout=10)

        second = await client.start("nap")

        assert (await second.wait(timeout=60)).status is RunStatus.COMPLETED
        assert await locked(harness.broker) == []


async def test_the_newest_run_goes_on_where_it_cancels_the_others(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(nap(singleton="cancel"))
        runs: list[Run] = []
        for _ in range(3):
            runs.append(await client.start("nap"))
            await trio.sleep(0.1)

        ended = [(await run.wait(timeout=60)).status for run in runs]

        assert ended == [RunStatus.CANCELLED, RunStatus.CANCELLED, RunStatus.COMPLETED]


async def test_the_lock_of_a_run_that_is_not_stored_yet_stays_its_own(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker):
        started = b'{"type":"workflow.started"}'
        await harness.broker.store("history.a", started, deadline=trio.current_time() + 5)
        before = Locks(harness.broker)
        await before.claim("nap", "a", "skip")
        after = Locks(harness.broker)  # another engine: the first one was killed in between

        assert await after.claim("nap", "b", "skip") == "a"
        assert await after.claim("nap", "a", "skip") == ""


async def test_a_run_that_claims_again_is_told_again_whom_it_replaces(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker):
        locks = Locks(harness.broker)
        await locks.claim("nap", "a", "cancel")
        assert await locks.claim("nap", "b", "cancel") == "a"

        assert await Locks(harness.broker).claim("nap", "b", "cancel") == "a"


async def test_a_lock_that_a_lost_run_has_left_is_free(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker):
        await Locks(harness.broker).claim("nap", "lost", "skip")

        assert await Locks(harness.broker).claim("nap", "b", "skip") == ""


async def locked(broker: Broker) -> list[str]:
    """Return which locks are held."""
    entries = await broker.kv_entries("singleton_locks", deadline=trio.current_time() + 5)
    return [entry.key for entry in entries]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"who": "Ada"}, "nap.Ada"),
        ({"who": 5}, "nap.5"),
        ({"who": 5.0}, "nap.5"),
        ({}, "nap"),
        (None, "nap"),
        ({"who": "a b"}, "nap.=c8687a08aa5d6ed2044328fa6a697ab8"),
    ],
)
def test_a_lock_is_named_for_the_workflow_and_the_value(given: object, key: str) -> None:
    assert lock_key(nap(singleton="skip", singleton_key="who").build(), given) == key


def test_a_key_without_a_singleton_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="needs singleton="):
        nap(singleton_key="who")
