"""``new``: a small project to begin from.

The files stand in ``cli/template`` with the suffix ``.tmpl``, so that neither pytest nor a
linter takes them for this package's own; ``{name}`` is filled in. A test makes a project and
runs its test.

The workflow in it has the project's name, its test uses the harness of ``testing`` and needs no
server, and ``dev`` in the new directory finds ``worker.py`` by itself.
"""

import re
from importlib.resources import files
from pathlib import Path

import click

from trio_dagnats.cli.exits import CliError, Exit
from trio_dagnats.cli.options import Setup, json_option

SUFFIX = ".tmpl"
"""What has another one in that directory is not part of a project."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""It becomes a directory, a project's name in ``pyproject.toml`` and a part of texts."""


def contents(name: str) -> dict[str, str]:
    """Return the files of a project by their names.

    Pure but for reading the templates, so a test can look at a project without making one.

    Raises:
        CliError: it is no name for a project.
    """
    if not NAME.fullmatch(name):
        raise CliError(
            f"{name!r} is no name for a project; use lower-case letters, digits and single '-', as "
            "in my-agents"
        )
    templates = files("trio_dagnats.cli") / "template"
    return {
        found.name.removesuffix(SUFFIX): found.read_text(encoding="utf-8").format(name=name)
        for found in sorted(templates.iterdir(), key=lambda found: found.name)
        if found.name.endswith(SUFFIX)
    }


@click.command(short_help="Make a project: a worker, a workflow, a test that passes.")
@click.argument("name")
@json_option
@click.pass_obj
def new(setup: Setup, name: str) -> int:
    """Make a project in the directory NAME: a worker, a workflow, and a test that passes."""
    made = contents(name)
    root = Path(name)
    try:
        # Nothing is ever written into a directory that is there: it may be somebody's work.
        root.mkdir()
    except FileExistsError:
        raise CliError(f"{name!r} exists already; choose another name") from None
    except OSError as error:
        raise CliError(f"{name!r} cannot be made here: {error.strerror}") from error
    for file, text in made.items():
        (root / file).write_text(text, encoding="utf-8")
    if setup.screen.as_json:
        setup.screen.data({"directory": name, "files": list(made)})
    else:
        setup.screen.show(f"made {name}/: {', '.join(made)}")
        setup.screen.show(f"next: cd {name} && trio-dagnats dev")
    return Exit.DONE


COMMANDS = (new,)
