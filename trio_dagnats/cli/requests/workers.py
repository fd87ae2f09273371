"""The commands that look at workers.

``workers`` reads the directory, in which each worker writes itself every 30 s: one that was
killed is listed for up to a minute. ``ps`` asks the workers themselves, so it shows what is true
now, and who does not answer. Both are read-only.

What ``ps`` shows of a worker that cannot answer: one that was killed within the last minute,
whose event loop is blocked, or whose account may not be asked, all look alike. A worker in Go
has no trees of tasks; it is listed by ``workers``, and not waited for by ``ps``.

An empty list is no error: a server without workers is what ``ps`` was asked about.
"""

import click

from trio_dagnats import Client
from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.options import Setup, talks
from trio_dagnats.cli.output import render
from trio_dagnats.cli.requests.runs import ask


@click.command()
@talks
@click.pass_obj
def workers(setup: Setup) -> int:
    """List the workers that are alive."""

    async def work(client: Client) -> int:
        # Only those that were seen within the last minute, by the server's clock.
        found = await client.workers()
        if setup.screen.as_json:
            setup.screen.data(found)
        elif found:
            setup.screen.show(render.workers_table(found))
        else:
            setup.screen.say("no workers")
        return Exit.DONE

    return ask(setup, work)


@click.command(short_help="Show every attempt in flight, and the line where it stands.")
@click.option("--worker", "worker_id", metavar="ID", help="Ask this worker only.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds."
)
@talks
@click.pass_obj
def ps(setup: Setup, worker_id: str | None, timeout: float) -> int:
    """Show every attempt in flight: its age, its lease, and the line where each task stands."""

    async def work(client: Client) -> int:
        # It takes as long as the slowest worker that the directory knows, ``timeout`` seconds at
        # most.
        found = await client.attempts(worker_id, timeout=timeout)
        if setup.screen.as_json:
            setup.screen.data(found)
        elif found:
            for worker in found:
                setup.screen.show(render.worker_attempts(worker))
        else:
            setup.screen.say("no workers")
        return Exit.DONE

    return ask(setup, work)


COMMANDS = (workers, ps)
