"""A worker in a process of its own: SIGTERM, Ctrl-C, Ctrl-C twice, on a real server."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from trio_dagnats import Client, Run, TaskContext, Worker, Workflow
from trio_dagnats.client import RunStatus, StepStatus
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport.nats_py.connection import PUBLIC_PATH

SCRIPT = Path(__file__).with_name("worker_process.py")
IN_FLIGHT = 50
PATIENCE = 60.0


@asynccontextmanager
async def long_server() -> AsyncIterator[Server]:
    """Run a server with an engine, and a workflow whose only step takes an hour."""
    async with Server() as server, LocalEngine(server.url), Client(server.url) as client:
        workflow = Workflow("long")
        workflow.step("long")
        await client.register(workflow)
        yield server


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The URL of such a server."""
    async with long_server() as server:
        yield server.url


@contextmanager
def worker_process(url: str, grace: float, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run the worker; whatever happens, it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), url, str(grace), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def started(client: Client, count: int) -> list[Run]:
    """Start runs and wait until their handlers run."""
    runs = [await client.start("long") for _ in range(count)]
    with trio.fail_after(PATIENCE):
        for run in runs:
            async for event in run.events():
                if event.type == "step.started":
                    break
    return runs


async def ended(process: subprocess.Popen[str]) -> int:
    """Wait for the process, without holding the loop."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


async def test_sigterm_hands_everything_back_and_exits_with_zero(url: str) -> None:
    async with Client(url) as client:
        with worker_process(url, grace=1.0) as process:
            runs = await started(client, IN_FLIGHT)
            assert len(await client.workers()) == 1
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == 0
            assert time.monotonic() - begun < 1.0 + 4.0
        assert await client.workers() == []

        second = Worker(url)

        @second.handle("long")
        async def long(ctx: TaskContext) -> int:
            return ctx.deliveries

        async with second:
            for run in runs:
                found = await run.wait(PATIENCE)
                assert found.status is RunStatus.COMPLETED
                assert found.steps["long"].status is StepStatus.COMPLETED
                assert found.steps["long"].attempts == 1


async def test_a_handler_that_will_not_end_is_named_and_left_behind(url: str) -> None:
    async with Client(url) as client:
        with worker_process(url, 0.5, "stubborn") as process:
            (run,) = await started(client, 1)
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == 70
            assert process.stderr is not None
            told = process.stderr.read()

    assert f"{run.id}.long attempt 1 does not end after it was cancelled" in told
    assert "await trio.sleep(3600)" in told
    assert f"left behind: {run.id}.long attempt 1: still running" in told


async def test_a_server_that_stands_still_keeps_no_process_that_exits_hard() -> None:
    """The handler ends, but nobody takes its note, its hand-back or its good-bye."""
    async with long_server() as server, Client(server.url) as client:
        with worker_process(server.url, 0.5, "hard") as process:
            (run,) = await started(client, 1)
            pid = server._server_pid()
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            try:
                assert await ended(process) == 70
            finally:
                os.kill(pid, signal.SIGCONT)
            assert process.stderr is not None
            told = process.stderr.read()

    # By nats-py's public calls nobody aborts a dead connection: a NAK could come after the lease.
    end = "lease left to expire" if os.environ.get(PUBLIC_PATH) else "handed back"
    assert f"left behind: {run.id}.long attempt 1: {end}" in told


async def test_ctrl_c_twice_ends_at_once_with_130(url: str) -> None:
    async with Client(url) as client:
        with worker_process(url, grace=600.0) as process:
            await started(client, 3)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            line = await trio.to_thread.run_sync(process.stderr.readline)
            while "draining" not in line:
                line = await trio.to_thread.run_sync(process.stderr.readline)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert await ended(process) == 130
            assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize("number", range(20))
async def test_one_ctrl_c_at_any_moment_never_hangs(url: str, number: int) -> None:
    """From the first line after the imports to the serving worker; another moment each time.

    Not in the imports: Python itself can lose a Ctrl-C there ("Exception ignored in:
    _get_module_lock", once in 260 tries on 3.11), before any code of ours could see it.
    """
    moment = random.Random(number).uniform(0.0, 0.8)
    with worker_process(url, grace=0.5) as process:
        assert process.stdout is not None
        assert await trio.to_thread.run_sync(process.stdout.readline) == "imported\n"
        await trio.sleep(moment)
        process.send_signal(signal.SIGINT)
        code = await ended(process)
        assert process.stderr is not None
        told = process.stderr.read()

    # Before the worker has its signal handlers, Python's own KeyboardInterrupt ends the process.
    assert code in {0, 1, 130, -signal.SIGINT}, told
    assert code == 0 or "KeyboardInterrupt" in told, told
