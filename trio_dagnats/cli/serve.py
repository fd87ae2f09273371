"""``run``: a worker against a server, as in production."""

import logging
import sys
from pathlib import Path

import click
import trio

from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.options import Setup, TargetType, nats_option
from trio_dagnats.cli.target import DEFAULT, load, locate

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command()
@click.argument("file_or_module", type=TargetType(), default=DEFAULT)
@nats_option
@click.pass_obj
def run(setup: Setup, file_or_module: str) -> int:
    """Run the worker in FILE_OR_MODULE [worker.py] until SIGINT or SIGTERM.

    Without --nats and its variables it serves the server that it was made with.
    """
    found = load(locate(file_or_module, Path.cwd()))
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    if setup.known_url is not None:
        found.worker.move_to(setup.known_url)
    trio.run(found.worker.start)
    return Exit.DONE


COMMANDS = (run,)
