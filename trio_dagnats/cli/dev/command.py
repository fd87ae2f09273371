"""The command ``dev``.

The order of an end is the nesting, from the inside out::

    everything                    the second signal cancels this
    └─ server and engine
       └─ client
          └─ processes            versions of the user's code, and remarks about what nobody serves
             └─ work              watching files, showing runs: the first signal cancels this

After the first signal files are watched no longer, and the version in service drains: its results
need the server, the engine and the connection, so those stay until it has ended. The exit code is 0
then. The second signal ends everything at once; its number is in the exit code.
"""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import click
import trio

from trio_dagnats.cli.dev import view
from trio_dagnats.cli.dev.process import WorkerProcess
from trio_dagnats.cli.dev.reload import Reloader
from trio_dagnats.cli.exits import CliError, Exit
from trio_dagnats.cli.options import (
    Setup,
    TargetType,
    json_option,
    nats_option,
    url_of_environment,
)
from trio_dagnats.cli.requests.unserved import Lookout
from trio_dagnats.cli.target import DEFAULT, Target, locate
from trio_dagnats.client import Client, WorkflowDef
from trio_dagnats.errors import UsageError, without_groups
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport.options import shown
from trio_dagnats.wire.events import EventType, HistoryEvent

PORT = 4222
"""NATS's own, so that the other commands find this server without an option."""
GRACE = 2.0
"""Seconds. Short, for a reload waits for it as long as a handler of the old version runs."""


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What ``dev`` shall do: serve a target on a server of its own, or on a given one.

    Attributes:
        target: the user's code.
        setup: the shared options; ``setup.given`` is a server to join, None for one of our own.
        port: the port of our own server, 0 for any.
        store: where our own server keeps its files, None for a directory that goes with it.
        grace: seconds that running handlers may go on when a version is replaced, or at the end.
    """

    target: Target
    setup: Setup
    port: int
    store: Path | None
    grace: float


@click.command(short_help="Develop: a server, an engine, your worker; reloads on change.")
@click.argument("file_or_module", type=TargetType(), default=DEFAULT)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="The server's port; 0 for any free one.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep the server's files there; without it they are deleted at the end.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=GRACE,
    show_default=True,
    help="Seconds that running handlers may go on (at most the worker's own grace).",
)
@nats_option
@json_option
@click.pass_obj
def dev(setup: Setup, file_or_module: str, port: int, store: Path | None, grace: float) -> int:
    """Develop: a server, an engine, and the worker in FILE_OR_MODULE [worker.py].

    The worker is replaced when a Python file beside it changes, and no run is lost: running
    handlers may end within the grace, what is left goes to the new worker. Workflows in the module
    are registered. With --nats it joins that server and its engine instead; the variables do not
    count here.
    """
    target = locate(file_or_module, Path.cwd())
    return trio.run(_run, Plan(target, setup, port, store, grace))


async def _run(plan: Plan) -> int:
    """Do all of it; return the exit code.

    The receiver of signals is the first task that is started and the last that ends.
    """
    signals = Signals()
    with without_groups():
        async with trio.open_nursery() as everything:
            signals.scopes.append(everything.cancel_scope)
            await everything.start(signals.run)
            async with _server(plan) as url:
                await _develop(plan, url, signals)
            everything.cancel_scope.cancel()
    return 128 + signals.hurried_by if signals.hurried_by else Exit.DONE


@final
class Signals:
    """SIGINT and SIGTERM: each one cancels the innermost scope that is left.

    ``scopes`` is a stack: whoever begins something that a signal may end pushes its scope.
    ``hurried_by`` is the signal that cancelled the last one, 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.scopes: list[trio.CancelScope] = []
        self.hurried_by = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive signals until all scopes are cancelled."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for number in received:
                scope = self.scopes.pop()
                if not self.scopes:
                    self.hurried_by = number
                scope.cancel()


@asynccontextmanager
async def _server(plan: Plan) -> AsyncIterator[str]:
    """Give the URL of a server with an engine: one of our own, or the one that was given.

    The variables of the environment do not count here: somebody who develops must not serve
    production's tasks because of a variable that is set. But other commands do look at them,
    hence the warning.

    A server that was given has an engine of its own: none is started, and none is looked for.
    """
    if plan.setup.given is not None:
        yield plan.setup.given
        return
    async with _own_server(plan) as server, LocalEngine(server.url):
        if url_of_environment() not in {None, server.url}:
            plan.setup.screen.warn(
                f"the environment names another server, so give other commands --nats {server.url}"
            )
        yield server.url


@asynccontextmanager
async def _own_server(plan: Plan) -> AsyncIterator[Server]:
    """Hold our own server for a block; say what is wrong with it in words of the command line.

    The error of ``Server`` speaks of its arguments (``store_dir``), which the user has never seen.
    """
    server = Server(port=plan.port or None, store_dir=plan.store)
    try:
        await server.__aenter__()
    except UsageError as error:
        raise CliError(_in_our_words(str(error), plan)) from error
    try:
        yield server
    finally:
        await server.__aexit__(None, None, None)


def _in_our_words(text: str, plan: Plan) -> str:
    """Say by the options of the command what is wrong with the server.

    The texts that it looks for are those of ``Server``; one that it does not know stays as it
    is.
    """
    if "in use" in text:
        return (
            f"port {plan.port} is in use; give another one with --port (0 for any free one), or "
            f"join the server there with --nats nats://127.0.0.1:{plan.port}"
        )
    if plan.store is not None:
        text = text.replace(f"store_dir {str(plan.store)!r}", f"--store {plan.store}")
    return text.replace(
        "give a directory of your own, or None for", "name another one, or none for"
    )


async def _develop(plan: Plan, url: str, signals: Signals) -> None:
    """Keep the user's code in service on a server, show what runs do, and drain at the end.

    The first version must come up, or ``dev`` ends with its error. Later ones may fail: then the
    old one goes on. Nothing is shown as ready before the view has its subscription, so that the
    first run that is started can be seen from its first event.
    """
    screen = plan.setup.screen
    async with Client(url) as client, trio.open_nursery() as processes:
        lookout = Lookout(client, screen)

        async def register(workflows: list[WorkflowDef]) -> None:
            for workflow in workflows:
                await client.register(workflow)
                # In a task of its own: the version shall serve now, and that is what the check
                # waits for.
                processes.start_soon(lookout.check, workflow)

        def make() -> WorkerProcess:
            tell = view.tell_for(screen)
            return WorkerProcess(plan.target.text, url, plan.grace, tell=tell)

        def on_event(event: HistoryEvent) -> None:
            definition = _started(event)
            if definition is not None:
                processes.start_soon(lookout.check, definition)

        if not screen.is_live:  # else it is the head of the live view
            screen.say(_title(plan, url))
        reloader = Reloader(make, register, screen, processes, plan.grace)
        async with trio.open_nursery() as work:
            signals.scopes.append(work.cancel_scope)
            await work.start(reloader.follow, plan.target.root)
            await work.start(view.show, client, screen, _title(plan, url), on_event)
            screen.say("ready")
        # Outside of the block that the first signal cancels, and inside of what it needs to drain.
        await reloader.close()
        # What still retires is ended; its tasks come back when their lease is over.
        processes.cancel_scope.cancel()


def _title(plan: Plan, url: str) -> str:
    """Say what is served where, and how to end it."""
    return f"{plan.target.text} on {shown(url)}; Ctrl-C ends it"


def _started(event: HistoryEvent) -> WorkflowDef | None:
    """Return the definition with which a run starts, if the event holds one.

    Such an event comes from a run that anybody has started, also of a workflow that this module
    does not hold: its tasks may have nobody to serve them just as well.
    """
    if event.type != EventType.WORKFLOW_STARTED or not event.payload:
        return None
    payload = json.loads(event.payload)
    try:
        return WorkflowDef.read(payload["workflow_def"]) if "workflow_def" in payload else None
    except UsageError:  # what this package does not know of a newer engine
        return None


COMMANDS = (dev,)
