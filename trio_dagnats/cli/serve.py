"""``run``: a worker against a server, as in production; several of them with ``--processes``."""

import gc
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import final

import click
import trio

from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.options import URL_VARIABLES, Setup, TargetType, nats_option
from trio_dagnats.cli.processes.count import Processes
from trio_dagnats.cli.processes.slot import Plan
from trio_dagnats.cli.processes.supervisor import Supervisor
from trio_dagnats.cli.target import DEFAULT, load, locate
from trio_dagnats.worker.worker import Worker

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
@nats_option
@click.pass_obj
def run(setup: Setup, file_or_module: str, processes: int) -> int:
    """Run the worker in FILE_OR_MODULE [worker.py] until SIGINT or SIGTERM.

    Without --nats and its variables it serves the server that it was made with. One of several
    processes that dies is started again.
    """
    if processes > 1:
        return _supervise(setup, file_or_module, processes)
    worker = find_worker(setup, file_or_module)
    trio.run(partial(worker.start, task_status=Ready()))
    return Exit.DONE


@final
class Ready:
    """What a worker tells when it serves.

    What is loaded by then stays: the garbage collector need not look at it again and again.

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


def find_worker(setup: Setup, file_or_module: str, who: str = "") -> Worker:
    """Load the worker and let it log to stderr and serve the server that the user has named.

    Raises:
        CliError: it cannot be loaded, or a variable names no server.
    """
    worker = load(locate(file_or_module, Path.cwd())).worker
    _log(who)
    worker.own_process()
    if setup.known_url is not None:
        worker.move_to(setup.known_url)
    return worker


def _supervise(setup: Setup, file_or_module: str, processes: int) -> int:
    locate(file_or_module, Path.cwd())
    _log()
    url = setup.known_url
    given = {} if url is None else {URL_VARIABLES[0]: url}
    return trio.run(Supervisor(processes, Plan(file_or_module, {**os.environ, **given})).run)


def _log(who: str = "") -> None:
    form = LOG_FORMAT.format(who=who)
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)


COMMANDS = (run,)
