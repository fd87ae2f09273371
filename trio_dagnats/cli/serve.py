"""``run``: a worker against a server, as in production; several of them with ``--processes``.

::

    run, one process       load the module here, register, worker.start: it owns signals and process
    run --processes N      a supervisor without user code; N times ``processes.child``
    run --register         before either; with N processes in one more process, which ends

``hard_exit`` is on in both (``Worker.own_process``): a handler that does not end cannot keep the
process alive beyond its last deadline.
"""

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import final

import click
import trio

from trio_dagnats.cli import interrupt
from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.options import URL_VARIABLES, Setup, TargetType, nats_option
from trio_dagnats.cli.processes import rules
from trio_dagnats.cli.processes.count import Processes
from trio_dagnats.cli.processes.slot import COMMAND_LINE, Plan
from trio_dagnats.cli.processes.supervisor import Supervisor
from trio_dagnats.cli.requests.register import register_all
from trio_dagnats.cli.target import DEFAULT, Found, load, locate

LOG_FORMAT = "%(asctime)s {who}%(levelname)s %(name)s: %(message)s"
"""``who`` is the number of the process when there are several: ``[2]`` and a space."""


@click.command(short_help="Run the worker in FILE_OR_MODULE until SIGINT or SIGTERM.")
@click.argument("file_or_module", type=TargetType(), default=DEFAULT)
@click.option(
    "--processes",
    type=Processes(),
    default=1,
    show_default=True,
    help="Worker processes that share the work; auto: one per usable core.",
)
@click.option("--register", "registers", is_flag=True, help="Register its workflows first.")
@nats_option
@click.pass_obj
def run(setup: Setup, file_or_module: str, processes: int, *, registers: bool) -> int:
    """Run the worker in FILE_OR_MODULE [worker.py] until SIGINT or SIGTERM.

    Without --nats and its variables it serves the server that it was made with. One of several
    processes that dies is started again. With --register the workflows there are registered once,
    before the first worker starts; if the engine refuses one, no worker does.
    """
    if processes > 1:
        return _supervise(setup, file_or_module, processes, registers=registers)
    found = find(setup, file_or_module)
    if registers:
        register_all(setup, file_or_module, found.worker, found.workflows)
    trio.run(partial(found.worker.start, task_status=Ready()))
    return Exit.DONE


@final
class Ready:
    """What a worker tells when it serves.

    What is loaded by then stays: the garbage collector need not look at it again and again.

    In place of trio's ``task_status`` for ``Worker.start``. Freezing what was loaded is worth it
    once, when all modules are imported and nothing of a task exists yet.

    Args:
        then: called afterwards.
    """

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self._then = then

    def started(self, _value: None = None) -> None:
        """Be told."""
        gc.collect()
        gc.freeze()
        if self._then is not None:
            self._then()


def find(setup: Setup, file_or_module: str, who: str = "") -> Found:
    """Load the module; its worker shall log to stderr and serve the server that the user names.

    Called by ``run`` and by each of several processes (``who`` is its number then). Logging is
    set up after the import: a module that does so itself has the last word, for ``basicConfig``
    leaves a root logger alone that has a handler.

    Raises:
        CliError: it cannot be loaded, or a variable names no server.
    """
    found = load(locate(file_or_module, Path.cwd()))
    _log(who)
    found.worker.own_process()
    if setup.known_url is not None:
        found.worker.move_to(setup.known_url)
    return found


def _supervise(setup: Setup, file_or_module: str, processes: int, *, registers: bool) -> int:
    """Run several processes; return the worst exit code.

    The target is looked for here only to say at once that it is not there; it is imported by the
    processes. They learn the server from the environment and not from an argument, which everybody
    on the machine can read.
    """
    locate(file_or_module, Path.cwd())
    _log()
    url = setup.known_url
    given = {} if url is None else {URL_VARIABLES[0]: url}
    plan = Plan(file_or_module, {**os.environ, **given})
    if registers and (code := interrupt.run(partial(_register, plan))):
        return code
    return trio.run(Supervisor(processes, plan).run)


async def _register(plan: Plan) -> int:
    """Register in a process of its own, for user code never runs in the supervisor."""
    done = await trio.run_process(
        [*COMMAND_LINE, "register", "--", plan.target],
        stdin=subprocess.DEVNULL,
        env=plan.environment,
        check=False,
    )
    return rules.exit_code(done.returncode)


def _log(who: str = "") -> None:
    """Log to stderr at INFO, unless the user's module has set logging up."""
    form = LOG_FORMAT.format(who=who)
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)


COMMANDS = (run,)
