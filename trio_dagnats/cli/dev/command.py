"""The command ``dev``."""

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
from trio_dagnats.cli.dev.process import Worker
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
GRACE = 2.0


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What ``dev`` shall do: serve a target on a server of its own, or on a given one."""

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
    """SIGINT and SIGTERM: each one cancels the innermost scope that is left."""

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
    """Give the URL of a server with an engine: one of our own, or the one that was given."""
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
    """Say by the options of the command what is wrong with the server."""
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
    screen = plan.setup.screen
    async with Client(url) as client, trio.open_nursery() as processes:
        lookout = Lookout(client, screen)

        async def register(workflows: list[WorkflowDef]) -> None:
            for workflow in workflows:
                await client.register(workflow)
                processes.start_soon(lookout.check, workflow)

        def make() -> Worker:
            tell = view.tell_for(screen)
            return Worker(plan.target.text, url, plan.grace, tell=tell)

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
        await reloader.close()
        processes.cancel_scope.cancel()


def _title(plan: Plan, url: str) -> str:
    return f"{plan.target.text} on {shown(url)}; Ctrl-C ends it"


def _started(event: HistoryEvent) -> WorkflowDef | None:
    """Return the definition with which a run starts, if the event holds one."""
    if event.type != EventType.WORKFLOW_STARTED or not event.payload:
        return None
    payload = json.loads(event.payload)
    try:
        return WorkflowDef.read(payload["workflow_def"]) if "workflow_def" in payload else None
    except UsageError:  # what this package does not know of a newer engine
        return None


COMMANDS = (dev,)
