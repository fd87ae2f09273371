"""The group of all commands, and the border where every error becomes a sentence and a code.

What ends a command, and what becomes of it:

==================================  ==============================================================
it                                  exit code
==================================  ==============================================================
returns                             what it returns: mostly ``Exit.DONE``
raises ``Interrupted``              128 and the signal's number; the command has said what it must
raises click's ``Abort``, Ctrl-C    ``Exit.INTERRUPTED``
raises an error of click's          ``Exit.USAGE``, with a hint at the command's help
raises anything else                ``exits.explain``: one sentence and its code; a bug is 70
==================================  ==============================================================

Called by ``main.main`` once the extra is known to be there.
"""

import os
import sys
import traceback
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from trio_dagnats.cli import exits, new, serve
from trio_dagnats.cli.dev import command as dev
from trio_dagnats.cli.exits import TRACEBACK, CliError, Exit, explain
from trio_dagnats.cli.interrupt import Interrupted
from trio_dagnats.cli.options import Setup
from trio_dagnats.cli.processes import child
from trio_dagnats.cli.requests import register, runs, workers
from trio_dagnats.errors import unwrap_group

NAME = "trio-dagnats"
COMPLETE = "_TRIO_DAGNATS_COMPLETE"
"""The variable by which a shell's completion script calls this program."""
SHELLS = ("bash", "zsh", "fish")
"""Those for which click can write a completion script."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="\b\nExit codes:\n" + exits.table(),
)
@click.version_option(package_name="trio-dagnats", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Develop, serve, start and look at DagNats workflows."""
    ctx.ensure_object(Setup)


@cli.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print the completion script of SHELL.

    Use it as: eval "$(trio-dagnats completion bash)"
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, NAME, COMPLETE).source())
    return Exit.DONE


for room in (new, dev, serve, child, register, runs, workers):
    for command in room.COMMANDS:
        cli.add_command(command)


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line; return the exit code.

    Never raises an error of a command; what is told of one goes to stderr, as one line. click
    would print and exit by itself (``standalone_mode``), but it knows neither our codes nor
    groups.
    """
    setup = Setup()
    try:
        code = cli.main(arguments, NAME, COMPLETE, standalone_mode=False, obj=setup)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except click.ClickException as error:
        return _refuse(setup, error)
    except Exception as error:  # noqa: BLE001 - the border: what is not an answer is an error
        return _fail(setup, unwrap_group(error))
    return code if isinstance(code, int) else Exit.DONE


def _refuse(setup: Setup, error: click.ClickException) -> int:
    """Say what click has found wrong with the arguments, and where the help is."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"; see `{context.command_path} --help`" if context else ""
    setup.screen.fail(f"{error.format_message().rstrip('.')}{hint}")
    return Exit.USAGE


def _fail(setup: Setup, error: BaseException) -> int:
    """Say what went wrong in one sentence; with ``TRIO_DAGNATS_TRACEBACK`` show where, too.

    A bug is told with its type, and how to see more: everything that has no sentence of its own is
    one.
    """
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    text, code = explain(error, _url(setup))
    hint = f"; set {TRACEBACK}=1 to see where" if code is Exit.BUG else ""
    setup.screen.fail(f"{text}{hint}")
    return code


def _url(setup: Setup) -> str:
    """Return the server for an error's text; a variable that names none has its own error."""
    try:
        return setup.url
    except CliError:
        return ""


if __name__ == "__main__":
    sys.exit(run(None))
