"""Synchronous handlers: they run in a trio thread, and the attempt knows in which.

The number of the thread is for those who look (``observe``): a stack is found by it. The loop is
free meanwhile, so the lease is renewed and the run heard as for any other handler.
"""

import threading
from collections.abc import Callable
from functools import partial

import trio

from trio_dagnats.worker.attempts.attempt import Attempt


async def run_in_thread(attempt: Attempt, function: Callable[[], object]) -> object:
    """Run a handler's function in a trio thread, bounded by the worker's concurrency.

    Cancellation: trio cannot stop a thread and this never abandons one, so a cancelled attempt
    waits for the function to return.
    """
    call = partial(_call, attempt, function)
    return await trio.to_thread.run_sync(call, limiter=attempt.shared.threads)


def _call(attempt: Attempt, function: Callable[[], object]) -> object:
    attempt.thread = threading.get_ident()
    try:
        return function()
    finally:
        attempt.thread = None
