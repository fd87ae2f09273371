"""The commands that start runs and look at them.

Each command is the same: read the arguments, then :func:`ask` with a function of a connected
client. What goes wrong is raised and not printed here; ``cli.app`` has the table of exit codes.

========  ===========================================  ==========================================
command   waits for                                    exit code, beside those of all commands
========  ===========================================  ==========================================
start     the snapshot, 10 s at most                   0 even if it does not come, with a warning
 --wait   the run's end, or ``--timeout``              0 completed, 1 ended otherwise, 5 too slow
runs      nothing                                      0
show      nothing                                      4 no such run
tail      the run's end                                0 completed, 1 ended otherwise, 4 no such run
signal    that it is stored                            4 no such run, or it has ended
cancel    the run's end, 10 s at most                  the same; 5 it has not ended in time
========  ===========================================  ==========================================

With ``--json`` data is one document, and one object a line where it comes bit by bit (``tail``).
Everything else that is said goes to stderr (``output.screen``).

A run is named by its id, by the beginning of one, or as ``last``. A terminal shows eight
characters of an id (``texts.short``), and they are enough for every command here.

All waits have a bound but two: ``start --wait`` without ``--timeout``, and ``tail``. These follow
the run to its end, however long it takes, and Ctrl-C leaves it alone.
"""

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
"""Seconds to find a server: a person waits. A worker has more patience, for it may come before it.
"""
CANCEL_PATIENCE = 10.0
"""Seconds until ``cancel`` gives up waiting for the end; the request stays stored."""
STORE_PATIENCE = 10.0
"""Seconds in which an engine takes up a run, however much it has to do."""
LOOK_AGAIN = 0.02
"""Seconds between two looks for a run's first snapshot, which comes within milliseconds."""
LATEST = "last"
"""In place of a run's id: the newest one."""
MOST_NAMED = 5
"""Ids named when the beginning of one fits several."""

Work = Callable[[Client], Awaitable[int]]
"""What a command does with its connection; returns the exit code."""


def ask(setup: Setup, work: Work) -> int:
    """Connect, do one thing, and return the exit code.

    Ctrl-C cancels ``work`` and ends the connection properly; what was asked of the engine by
    then may be done all the same.

    Raises:
        Interrupted: a signal came first.
        ConnectError: no usable server within ``CONNECT_TIMEOUT`` seconds.
    """

    async def main() -> int:
        async with Client(setup.url, ConnectOptions(connect_timeout=CONNECT_TIMEOUT)) as client:
            return await work(client)

    return run(main)


async def find(client: Client, given: str) -> Run:
    """Find a run by its id, by the beginning of one, or as ``last``.

    A short id is what the terminal shows, so a command has to take it. Several that fit are an
    error with their names, never the first of them: the next command may be ``cancel``.

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
    # Before anything is asked of a server: a slip of the keyboard costs no connection.
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
        # Nobody who stops waiting means to stop the run; for that there is ``cancel``. A signal
        # that comes between request and reply leaves it open whether a run has begun.
        setup.screen.say("".join(f"run {run_id} goes on" for run_id in begun) or "nothing started")
        raise


async def _start(client: Client, workflow: str, value: object, key: str | None) -> Run:
    """Start a run; a workflow that is not registered is told by what there is.

    The engine's own words for that differ, and none of them says what to do. So after any refusal
    its list is read; if the workflow is in it the refusal is about something else and goes on
    unchanged.
    """
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
    """Wait for a run's end and write its output; return the exit code.

    The id is said first, so that it is known whatever happens then. In a task beside, the
    workflow's tasks that nobody serves are looked for: a run that waits for a worker says nothing
    by itself.

    Raises:
        TooSlowError: trio's, when ``timeout`` seconds are over; the run goes on.
        RunFailed: it has ended otherwise than completed (without ``--json``).
    """
    if not setup.screen.as_json:
        setup.screen.say(f"run {started.id}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look_out, setup, client, started)
        ended = await started.wait(timeout)
        # The run has ended, so there is nothing to look out for any more.
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
    """Wait until the engine has stored a run, so that the next command finds it.

    The engine's reply means that the start is stored, not that the run exists; without this a
    ``show last`` right after it would find the run before.
    """
    with trio.move_on_after(STORE_PATIENCE) as scope:
        await _first_snapshot(started)
    if scope.cancelled_caught:
        setup.screen.warn(f"the engine has not taken up the run within {STORE_PATIENCE:g} s")


async def _first_snapshot(started: Run) -> WorkflowRun:
    """Wait until a run has a snapshot; the caller has the deadline."""
    found = await started.snapshot()
    while found is None:
        await trio.sleep(LOOK_AGAIN)
        found = await started.snapshot()
    return found


async def _look_out(setup: Setup, client: Client, started: Run) -> None:
    """Warn of tasks that nobody serves. Ends by itself, or with the wait that it stands beside."""
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
        # The client gives all of them, oldest first; so these are the last ones, backwards.
        _list_runs(setup, found[: -limit - 1 : -1])
        return Exit.DONE

    return ask(setup, work)


def _list_runs(setup: Setup, found: list[WorkflowRun]) -> None:
    """Write runs, with whole ids for a program and their beginnings for a person."""
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
        # It was found by its stored snapshot a moment ago.
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
            # Two sources, one output: both write whole lines, so none ever stands inside another.
            await nursery.start(_print_chunks, setup, found)
            async for event in found.events():
                if setup.screen.as_json:
                    setup.screen.line(documents.of_event(event))
                else:
                    setup.screen.show(render.event_line(event))
            nursery.cancel_scope.cancel()
        # The event of the end can be earlier than the snapshot that says how it ended.
        ended = await found.wait()
        return Exit.DONE if ended.status is RunStatus.COMPLETED else Exit.RUN_FAILED

    return ask(setup, work)


async def _print_chunks(
    setup: Setup, found: Run, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Write stream chunks until cancelled.

    Ready (``task_status``) when the server has the subscription: chunks are not stored, so what is
    sent before that is lost. That is why ``tail`` starts this before it reads the first event.
    """
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
        # A signal is only put into a bucket, where nobody would ever look for one of an ended run.
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
        # The request is only stored by now; what it has led to is what the user wants to know, and
        # a run that completed in the meantime is told as completed.
        ended = await found.wait(CANCEL_PATIENCE)
        status = ended.status.value
        _tell(setup, found.id, {"status": status}, f"run {found.id} {status}")
        return Exit.DONE

    return ask(setup, work)


async def _find_running(client: Client, given: str, refusal: str) -> Run:
    """Find a run that has not ended.

    It may end in the next moment: then a signal is stored and nobody takes it, and a cancellation
    does nothing. The look is for the ordinary mistake, a run that ended long ago.

    Raises:
        CliError: there is no such run, several, or it has ended.
    """
    found = await find(client, given)
    status = await found.status()
    if status.is_terminal:
        raise CliError(f"run {found.id} is {status.value} already and {refusal}", Exit.NOT_FOUND)
    return found


def _tell(setup: Setup, run_id: str, facts: dict[str, object], text: str) -> None:
    """Say what was done to a run, for people or as a document."""
    if setup.screen.as_json:
        setup.screen.data({"run_id": run_id, **facts})
    else:
        setup.screen.show(text)


COMMANDS = (start, runs, show, tail, signal, cancel)
