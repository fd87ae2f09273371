"""The commands that start runs and look at them."""

import time
from collections.abc import Awaitable, Callable

import click
import trio

from trio_dagnats import Client, Run
from trio_dagnats.cli.exits import CliError, Exit
from trio_dagnats.cli.interrupt import Interrupted, run
from trio_dagnats.cli.options import Setup, read_json, run_argument, talks
from trio_dagnats.cli.output import documents, render
from trio_dagnats.cli.requests.unserved import Lookout
from trio_dagnats.client import RunStatus, WorkflowRun
from trio_dagnats.errors import EngineError, UsageError
from trio_dagnats.transport import ConnectOptions

CONNECT_TIMEOUT = 2.0
CANCEL_PATIENCE = 10.0
STORE_PATIENCE = 10.0
"""Seconds in which an engine takes up a run, however much it has to do."""
LOOK_AGAIN = 0.02
LATEST = "last"
MOST_NAMED = 5

Work = Callable[[Client], Awaitable[int]]


def ask(setup: Setup, work: Work) -> int:
    """Connect, do one thing, and return the exit code."""

    async def main() -> int:
        async with Client(setup.url, ConnectOptions(connect_timeout=CONNECT_TIMEOUT)) as client:
            return await work(client)

    return run(main)


async def find(client: Client, given: str) -> Run:
    """Find a run by its id, by the beginning of one, or as ``last``.

    Raises:
        CliError: there is no such run, or there are several.
    """
    if given == LATEST:
        runs = await client.runs()
        if not runs:
            raise CliError("there are no runs yet", Exit.NOT_FOUND)
        return client.run(runs[-1].run_id)
    found = await client.find(given)
    if not found:
        raise CliError(f"there is no run {given!r}; `trio-dagnats runs` lists them", Exit.NOT_FOUND)
    if len(found) > 1:
        named = ", ".join(found[:MOST_NAMED])
        raise CliError(f"{len(found)} runs begin with {given!r}: {named}; give more of the id")
    return client.run(found[0])


@click.command()
@click.argument("workflow")
@click.option("--input", "given", metavar="JSON", help="The input: JSON, @FILE, or - for stdin.")
@click.option("--key", metavar="KEY", help="An idempotency key: the same key, the same run.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end and print the output.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds that --wait waits.")
@talks
@click.pass_obj
def start(
    setup: Setup,
    workflow: str,
    given: str | None,
    key: str | None,
    *,
    waits: bool,
    timeout: float | None,
) -> int:
    """Start a run of WORKFLOW; print its id, with --wait its output."""
    value = read_json(given, "--input")
    begun: list[str] = []

    async def work(client: Client) -> int:
        started = await _start(client, workflow, value, key)
        begun.append(started.id)
        if not waits:
            await _be_stored(setup, started)
            if setup.screen.as_json:
                setup.screen.data({"run_id": started.id})
            else:
                setup.screen.show(started.id)
            return Exit.DONE
        return await _await_output(setup, client, started, timeout)

    try:
        return ask(setup, work)
    except Interrupted:
        setup.screen.say("".join(f"run {run_id} goes on" for run_id in begun) or "nothing started")
        raise


async def _start(client: Client, workflow: str, value: object, key: str | None) -> Run:
    try:
        return await client.start(workflow, value, idempotency_key=key)
    except (EngineError, UsageError) as error:
        known = [definition.name for definition in await client.workflows()]
        if workflow in known:
            raise
        there = f"there are {', '.join(known)}" if known else "there is none at all"
        raise CliError(
            f"no workflow {workflow!r} is registered; {there}; `trio-dagnats register "
            "FILE_OR_MODULE` registers those of a module",
            Exit.NOT_FOUND,
        ) from error


async def _await_output(setup: Setup, client: Client, started: Run, timeout: float | None) -> int:
    if not setup.screen.as_json:
        setup.screen.say(f"run {started.id}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look_out, setup, client, started)
        ended = await started.wait(timeout)
        nursery.cancel_scope.cancel()
    completed = ended.status is RunStatus.COMPLETED
    output = await started.output() if completed else None
    if setup.screen.as_json:
        setup.screen.data({**documents.of_run(ended), "output": output})
    elif completed:
        setup.screen.data(output)
    else:
        await started.output()  # raises what there is to say
    return Exit.DONE if completed else Exit.RUN_FAILED


async def _be_stored(setup: Setup, started: Run) -> None:
    """Wait until the engine has stored a run, so that the next command finds it."""
    with trio.move_on_after(STORE_PATIENCE) as scope:
        await _first_snapshot(started)
    if scope.cancelled_caught:
        setup.screen.warn(f"the engine has not taken up the run within {STORE_PATIENCE:g} s")


async def _first_snapshot(started: Run) -> WorkflowRun:
    found = await started.snapshot()
    while found is None:
        await trio.sleep(LOOK_AGAIN)
        found = await started.snapshot()
    return found


async def _look_out(setup: Setup, client: Client, started: Run) -> None:
    found = await _first_snapshot(started)
    known = {definition.name: definition for definition in await client.workflows()}
    if found.workflow_id in known:
        await Lookout(client, setup.screen).check(known[found.workflow_id])


@click.command()
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option(
    "--status",
    type=click.Choice([s.value for s in RunStatus]),
    metavar="STATUS",
    help=f"Only these: {', '.join(RunStatus)}.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most.")
@talks
@click.pass_obj
def runs(setup: Setup, workflow: str | None, status: str | None, limit: int) -> int:
    """List the newest runs, newest first."""

    async def work(client: Client) -> int:
        found = await client.runs(workflow, None if status is None else RunStatus(status))
        _list_runs(setup, found[: -limit - 1 : -1])
        return Exit.DONE

    return ask(setup, work)


def _list_runs(setup: Setup, found: list[WorkflowRun]) -> None:
    if setup.screen.as_json:
        setup.screen.data([documents.of_run(run) for run in found])
    elif found:
        whole_ids = not setup.screen.is_terminal
        setup.screen.show(render.runs_table(found, time.time_ns(), whole_ids=whole_ids))
    else:
        setup.screen.say("no runs")


@click.command()
@run_argument
@talks
@click.pass_obj
def show(setup: Setup, run_id: str) -> int:
    """Show a run: steps, attempts, times and errors, as a tree.

    RUN is an id, the beginning of one, or "last".
    """

    async def work(client: Client) -> int:
        found = await (await find(client, run_id)).timeline()
        assert found is not None
        if setup.screen.as_json:
            setup.screen.data(documents.of_timeline(found))
        else:
            setup.screen.show(render.run_tree(found, time.time_ns()))
        return Exit.DONE

    return ask(setup, work)


@click.command(short_help="Print a run's events and chunks as they come, until its end.")
@run_argument
@talks
@click.pass_obj
def tail(setup: Setup, run_id: str) -> int:
    """Print a run's events and stream chunks as they come, until the run ends."""

    async def work(client: Client) -> int:
        found = await find(client, run_id)
        async with trio.open_nursery() as nursery:
            await nursery.start(_print_chunks, setup, found)
            async for event in found.events():
                if setup.screen.as_json:
                    setup.screen.line(documents.of_event(event))
                else:
                    setup.screen.show(render.event_line(event))
            nursery.cancel_scope.cancel()
        ended = await found.wait()
        return Exit.DONE if ended.status is RunStatus.COMPLETED else Exit.RUN_FAILED

    return ask(setup, work)


async def _print_chunks(
    setup: Setup, found: Run, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with found.chunks() as chunks:
        task_status.started()
        async for chunk in chunks:
            now_ns = time.time_ns()
            if setup.screen.as_json:
                setup.screen.line(documents.of_chunk(found.id, chunk.step_id, chunk.data, now_ns))
            else:
                setup.screen.show(render.chunk_line(chunk.step_id, chunk.data, now_ns))


@click.command()
@run_argument
@click.argument("name")
@click.option("--data", metavar="JSON", help="The value: JSON, @FILE, or - for stdin.")
@talks
@click.pass_obj
def signal(setup: Setup, run_id: str, name: str, data: str | None) -> int:
    """Give a run the signal NAME."""
    value = read_json(data, "--data")

    async def work(client: Client) -> int:
        found = await _find_running(client, run_id, "takes no signals")
        await found.signal(name, value)
        _tell(setup, found.id, {"signal": name}, f"run {found.id} has the signal {name!r}")
        return Exit.DONE

    return ask(setup, work)


@click.command()
@run_argument
@talks
@click.pass_obj
def cancel(setup: Setup, run_id: str) -> int:
    """Cancel a run; its handlers are stopped."""

    async def work(client: Client) -> int:
        found = await _find_running(client, run_id, "cannot be cancelled")
        await found.cancel()
        ended = await found.wait(CANCEL_PATIENCE)
        status = ended.status.value
        _tell(setup, found.id, {"status": status}, f"run {found.id} {status}")
        return Exit.DONE

    return ask(setup, work)


async def _find_running(client: Client, given: str, refusal: str) -> Run:
    found = await find(client, given)
    status = await found.status()
    if status.is_terminal:
        raise CliError(f"run {found.id} is {status.value} already and {refusal}", Exit.NOT_FOUND)
    return found


def _tell(setup: Setup, run_id: str, facts: dict[str, object], text: str) -> None:
    if setup.screen.as_json:
        setup.screen.data({"run_id": run_id, **facts})
    else:
        setup.screen.show(text)


COMMANDS = (start, runs, show, tail, signal, cancel)
