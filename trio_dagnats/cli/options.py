"""Arguments and options that several commands have.

``--nats`` and ``--json`` write into one :class:`Setup` that ``app`` makes and click carries
along; a command gets it by ``@click.pass_obj``. Options are callbacks, not arguments, so that a
command with both has neither in its signature.

Which server? ``--nats``, else the first of the variables that is set, else localhost. Commands
that have a worker at hand (``run``, ``register``) ask for ``known_url`` and leave the worker's
own server alone where that is None; ``dev`` looks at ``given`` only, and all others ask for
``url``.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, final

import click
from click.shell_completion import CompletionItem

from trio_dagnats.cli.exits import CliError
from trio_dagnats.cli.output.screen import Screen
from trio_dagnats.transport.options import check_url

F = TypeVar("F", bound=Callable[..., object])

URL_VARIABLES = ("DAGNATS_NATS_URL", "NATS_URL")
"""Read as the Go binaries do.

The first that is set counts, even if it is no URL: then that is the error.
"""
LOCALHOST = "nats://localhost:4222"


@final
@dataclass(slots=True)
class Setup:
    """What the shared options of a command say.

    Written by the options' callbacks before the command begins; afterwards it is only read.

    Attributes:
        given: the URL of ``--nats``, None without it.
        screen: where output goes.
    """

    given: str | None = None
    screen: Screen = field(default_factory=Screen)

    @property
    def known_url(self) -> str | None:
        """The URL of the option or of the environment, None if neither says one."""
        return self.given or url_of_environment()

    @property
    def url(self) -> str:
        """The server to talk to."""
        return self.known_url or LOCALHOST


def url_of_environment() -> str | None:
    """Return the URL that the environment names, None without one.

    Raises:
        CliError: it is no URL; the text names the variable.
    """
    for name in URL_VARIABLES:
        if found := os.environ.get(name):
            try:
                return check_url(found)
            except Exception as error:
                raise CliError(f"{name}: {error}") from error
    return None


def _take_url(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Take ``--nats``; what is no URL is refused here, by the option's name."""
    ctx.ensure_object(Setup).given = None if value is None else check_url(value)


def _take_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    """Take ``--json``; the screen decides by it what is written."""
    ctx.ensure_object(Setup).screen.as_json = value


nats_option = click.option(
    "--nats",
    metavar="URL",
    expose_value=False,
    callback=_take_url,
    help="The NATS server [DAGNATS_NATS_URL, NATS_URL, else nats://localhost:4222].",
)
json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_take_json, help="Write data as JSON."
)
run_argument = click.argument("run_id", metavar="RUN")


def talks(function: F) -> F:
    """Give a command the options ``--nats`` and ``--json``."""
    return nats_option(json_option(function))


@final
class TargetType(click.ParamType[str]):
    """``FILE_OR_MODULE``; the shell completes files."""

    name = "file_or_module"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's own signature
        param: click.Parameter,  # noqa: ARG002 - the same
        incomplete: str,
    ) -> list[CompletionItem]:
        """Let the shell complete files."""
        return [CompletionItem(incomplete, type="file")]


def read_json(text: str | None, option: str) -> object:
    """Read JSON from an option: as it stands, ``@FILE``, or ``-`` for standard input.

    Bare words are no JSON, and the most common mistake is that the shell has eaten the quotes.
    So the error shows what has arrived, and how to quote it.

    Standard input is read to its end.

    Raises:
        CliError: it is not JSON; the text says where, and how to quote it.

    Args:
        text: what was given, None if the option was not.
        option: its name, for the error.
    """
    if text is None:
        return None
    written = _written(text, option)
    try:
        return json.loads(written)
    except ValueError as error:
        shown = written if len(written) <= 40 else f"{written[:40]}..."
        raise CliError(
            f"{option} is not JSON: {error}, in {shown!r}; quote it for the shell, as in "
            f"""{option} '{{"name": "Ada"}}' or {option} '"text"'"""
        ) from error


def _written(text: str, option: str) -> str:
    """Return what an option's value stands for, as text."""
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{option}: {text[1:]!r} cannot be read: {error}") from error
