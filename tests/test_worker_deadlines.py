"""The seconds of a drain's end, against a server that does not answer."""

import os
import signal

import pytest
import trio

from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.worker.deadlines import gone_within


async def noop(ctx: TaskContext) -> None: ...


@pytest.mark.parametrize("grace", [0.0, 0.5])
async def test_a_server_that_does_not_answer_keeps_no_drain_longer_than_the_deadlines_say(
    grace: float,
) -> None:
    async with Server() as server:
        async with LocalEngine(server.url):
            pass
        pid = server._server_pid()
        assert pid is not None
        worker = Worker(server.url, grace=grace)
        worker.handle("t", noop)
        try:
            async with worker:
                os.kill(pid, signal.SIGSTOP)
                begun = trio.current_time()
            took = trio.current_time() - begun
        finally:
            os.kill(pid, signal.SIGCONT)

    assert took <= gone_within(grace)


def test_a_drain_of_25_s_of_grace_ends_within_the_30_s_of_kubernetes() -> None:
    assert gone_within(25.0) < 30.0
