"""``register``: the workflows of a module go to an engine; ``--check`` says what would change.

::

    locate, collect      the module is imported here, in this process
    connect              where the user says; else where the module's worker would
    compare              each workflow with what is stored under its name (``client.stored``)
    --check: say it      exit code 6 if anything is new or would change, 0 if not
    else: register       one after the other, and say what became of each

Nothing is ever unregistered: other modules' workflows are stored in the same place.
"""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click

from trio_dagnats import Client, Worker
from trio_dagnats.cli.exits import CliError, Exit, explain
from trio_dagnats.cli.interrupt import run
from trio_dagnats.cli.options import Setup, TargetType, talks
from trio_dagnats.cli.output import changes
from trio_dagnats.cli.output.changes import State
from trio_dagnats.cli.requests.runs import CONNECT_TIMEOUT
from trio_dagnats.cli.target import DEFAULT, collect, locate
from trio_dagnats.client import WorkflowDef
from trio_dagnats.client.stored import changes as changes_of
from trio_dagnats.errors import BrokerError, EngineError, Missing, Refused, TooLarge
from trio_dagnats.transport import ConnectOptions, open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.definitions.difference import Difference

Plan = list[tuple[WorkflowDef, list[Difference] | None]]
"""Workflows, and what is to change for each: None for a new one.

Made before anything is written, so that what is said about a change is what it was before it.
"""


@click.command(short_help="Register the workflows in FILE_OR_MODULE.")
@click.argument("file_or_module", type=TargetType(), default=DEFAULT)
@click.option("--check", is_flag=True, help="Write nothing; say what would change.")
@talks
@click.pass_obj
def register(setup: Setup, file_or_module: str, *, check: bool) -> int:
    """Register the workflows at the top level of FILE_OR_MODULE [worker.py].

    Each goes under its own name, in place of an earlier one: runs that go on go on with the new
    one. Without --nats and its variables they go to the server that the worker there was made with.
    """
    worker, workflows = collect(locate(file_or_module, Path.cwd()))
    return register_all(setup, file_or_module, worker, workflows, check=check)


def register_all(
    setup: Setup,
    target: str,
    worker: Worker | None,
    workflows: tuple[WorkflowDef, ...],
    *,
    check: bool = False,
) -> int:
    """Register workflows, or only say what would change; return the exit code.

    All of them are sent, those too that are registered as they are: the engine has the last word
    on what it takes.

    Called by ``register``, and by ``run --register`` before its worker starts.

    The engine refuses some and takes others; those that it takes stay registered. With ``check``
    the exit code is ``Exit.CHANGES`` if one is new or would change.

    Raises:
        CliError: there are none, or not all of them are registered; the text says which.
    """
    if not workflows:
        raise CliError(
            f"{target} has no workflow; make one at its top level: workflow = Workflow('NAME')"
        )

    async def main() -> int:
        async with _connection(setup, worker) as broker:
            plan = await _compare(setup, broker, workflows)
            if check:
                return _say_what_would_change(setup, plan)
            async with Client(broker) as client:
                await _register(setup, client, plan)
        return Exit.DONE

    return run(main)


def _connection(setup: Setup, worker: Worker | None) -> AbstractAsyncContextManager[Broker]:
    """Connect as the worker does, who may have a login and a server of its own.

    The URL of the command line or the environment goes before the worker's own, but its login
    does not get lost by that: the connection is made by the worker, which is moved there.
    """
    if worker is None:
        return open_broker(setup.url, ConnectOptions(connect_timeout=CONNECT_TIMEOUT))
    if setup.known_url is not None:
        worker.move_to(setup.known_url)
    return worker.connect()


async def _compare(setup: Setup, broker: Broker, workflows: tuple[WorkflowDef, ...]) -> Plan:
    """Find out what registering would change; None stands for a workflow that is new.

    Raises:
        CliError: there is no engine on the server. Said here, because only here is it known which
            server that is: ``cli.app`` would name the one of the options.
    """
    try:
        return [(workflow, await changes_of(broker, workflow)) for workflow in workflows]
    except Missing as error:  # here, because the server may be the worker's own
        raise CliError(*explain(error, setup.known_url or "")) from error


def _say_what_would_change(setup: Setup, plan: Plan) -> int:
    """Write the comparison; return whether anything is to be done, as an exit code."""
    states = [changes.state_of(differences) for _, differences in plan]
    for (workflow, differences), state in zip(plan, states, strict=True):
        _tell(setup, workflow, state, differences)
    if set(states) == {State.UNCHANGED}:
        return Exit.DONE
    setup.screen.say("nothing was written; without --check it is")
    return Exit.CHANGES


async def _register(setup: Setup, client: Client, plan: Plan) -> None:
    """Register one after the other; a refusal keeps none of the others back, silence does.

    A refusal is about one workflow, so the others are tried. Silence is about the engine: each
    of the others would wait just as long, so it ends there and names all that are left.

    Raises:
        CliError: not all are registered; the text says which, and what became of the others.
    """
    refused: list[str] = []
    for number, (workflow, differences) in enumerate(plan):
        try:
            await client.register(workflow)
        except (Refused, TooLarge) as error:
            refused.append(f"{workflow.name}: {error}")
            _tell(setup, workflow, State.REFUSED, None, str(error))
        except (EngineError, BrokerError) as error:
            left = ", ".join(workflow.name for workflow, _ in plan[number:])
            raise CliError(f"not registered: {left}: {error}", Exit.NO_ENGINE) from error
        else:
            _tell(setup, workflow, changes.state_of(differences), differences)
    if refused:
        others = "" if len(refused) == len(plan) else "; the others are registered"
        raise CliError(f"not registered: {'; '.join(refused)}{others}", Exit.NO_ENGINE)


def _tell(
    setup: Setup,
    workflow: WorkflowDef,
    state: State,
    differences: list[Difference] | None,
    error: str | None = None,
) -> None:
    """Write one workflow's lines, or its document; called as soon as that is known."""
    if setup.screen.as_json:
        setup.screen.line(changes.document(workflow.name, state, differences or (), error))
        return
    for line in changes.lines(workflow.name, state, differences or ()):
        setup.screen.show(line)


COMMANDS = (register,)
