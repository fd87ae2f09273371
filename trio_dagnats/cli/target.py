"""What ``FILE_OR_MODULE`` names: where it is, and the worker and workflows in it.

``worker.py``, ``pkg/worker.py``, ``pkg.worker``, each with ``:name`` when there are several
workers.

::

    given            root (goes to sys.path)             module         path
    ---------------  ----------------------------------  -------------  ---------------
    worker.py        its directory                       worker         the file
    pkg/worker.py    the directory above the topmost     pkg.worker     the file
                     directory with an __init__.py
    pkg              a module's name: where we are       pkg            None
    pkg/ or .        as for the __init__.py in it        pkg            that file
    any of them:name the same; ``name`` is the worker's variable

So a file in a package is imported as part of it, and its relative imports work. Whatever the user's
code raises on import becomes one sentence with its line (:func:`blame`): a traceback would show
ours.

Called by ``run``, ``register``, and by the processes of ``dev`` and ``run --processes``. User
code is imported by :func:`collect` and nowhere else in the command line.
"""

import importlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import final

from trio_dagnats import Worker, Workflow
from trio_dagnats.cli.exits import CliError
from trio_dagnats.wire.definitions.workflow import WorkflowDef

DEFAULT = "worker.py"
"""What ``new`` writes, so that the commands need no argument in a new project."""


@final
@dataclass(frozen=True, slots=True)
class Target:
    """Where to find the user's code.

    Attributes:
        text: as it was given.
        root: the directory that goes to the front of ``sys.path``, and that ``dev`` watches.
        module: the module's name.
        path: the file, None for a module that Python shall find.
        name: the worker's name in the module, empty if it has only one.
    """

    text: str
    root: Path
    module: str
    path: Path | None
    name: str = ""


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What the user's module holds.

    Attributes:
        worker: the one that was named, or the only one.
        workflows: those at the module's top level, each name once, in the order of their variables.
    """

    worker: Worker
    workflows: tuple[WorkflowDef, ...]


def locate(text: str, here: Path) -> Target:
    """Say where a target is; nothing is imported.

    A relative place is one under ``here``. Pure but for looking whether files are there; the
    target may still be no module, or one without a worker.

    Raises:
        CliError: there is no such file.
    """
    place, _, name = text.partition(":")
    if not (place.endswith(".py") or "/" in place or place in {".", ".."}):
        if not all(part.isidentifier() for part in place.split(".")):
            raise CliError(
                f"{text!r} is neither a file, as app/worker.py, nor a module, as app.worker"
            )
        return Target(text, here, place, None, name)
    path = (here / place).resolve()
    if path.is_dir():
        path /= "__init__.py"
    if not path.is_file():
        raise CliError(
            f"there is no file {place!r}; `trio-dagnats new NAME` makes a project to begin from"
        )
    parts = [path.stem] if path.stem != "__init__" else []
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return Target(text, root, ".".join(parts), path, name)


def load(target: Target) -> Found:
    """Import the target and find its worker and workflows.

    Raises:
        CliError: it cannot be imported, or has not exactly one worker; one sentence that names the
            line.
    """
    worker, workflows = collect(target)
    if worker is None:
        raise CliError(
            f"{target.text} has no worker; make one at its top level: "
            "worker = Worker('nats://localhost:4222')"
        )
    return Found(worker, workflows)


def collect(target: Target) -> tuple[Worker | None, tuple[WorkflowDef, ...]]:
    """Import the target and find its workflows, and its worker if it has one.

    ``sys.path`` keeps the root: the module may import its neighbours later, when a handler runs.
    A module that ends the program (``sys.exit``) is an error like any other.

    Raises:
        CliError: it cannot be imported, or has several workers, or another one than the target
            names; one sentence that names the line.
    """
    sys.path.insert(0, str(target.root))
    try:
        module = _import(target)
    except SystemExit as error:
        raise CliError(f"{target.text}: it ended by sys.exit({error.code!r}) on import") from error
    except Exception as error:
        raise CliError(blame(error, target)) from error
    return _worker(module, target), _workflows(module, target)


def blame(error: BaseException, target: Target) -> str:
    """Say in one sentence what went wrong on import, and in which line of the user's code.

    The line is the last one of the user's own code on the way to the error: not the one deep in
    a library that raised it, nor ours that imported it. An error without any names the target
    alone.
    """
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).is_relative_to(target.root)]
    outside = [f for f in ours if "site-packages" not in f.filename]
    if not outside:
        return f"{target.text}: {type(error).__name__}: {text}"
    last = outside[-1]
    return f"{_shown(last.filename)}, line {last.lineno}: {type(error).__name__}: {text}"


def _import(target: Target) -> ModuleType:
    """Import the target's module, once.

    Raises whatever it raises.
    """
    known = sys.modules.get(target.module)
    taken = known is not None and getattr(known, "__file__", None) != str(target.path)
    if target.path is None or "." in target.module or not taken:
        return importlib.import_module(target.module)
    # The file is called like a module that is loaded already; it must not get that one.
    spec = importlib.util.spec_from_file_location(f"{target.module}_of_yours", target.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _worker(module: ModuleType, target: Target) -> Worker | None:
    """Pick the worker: the one that is named, else the only one, None if there is none.

    One worker under two names is one, so it is told apart by identity.
    """
    found = {name: value for name, value in vars(module).items() if isinstance(value, Worker)}
    if target.name:
        if target.name not in found:
            raise CliError(
                f"{target.text}: there is no worker called {target.name!r}; {_are(found)}"
            )
        return found[target.name]
    if len({id(worker) for worker in found.values()}) > 1:
        raise CliError(
            f"{target.text} has {len(found)} workers; say which: {_which(found, target)}"
        )
    return next(iter(found.values()), None)


def _are(found: dict[str, Worker]) -> str:
    return f"there are {', '.join(sorted(found))}" if found else "there is none at all"


def _which(found: dict[str, Worker], target: Target) -> str:
    return " or ".join(f"{target.text}:{name}" for name in sorted(found))


def _workflows(module: ModuleType, target: Target) -> tuple[WorkflowDef, ...]:
    """Build the workflows at the top level.

    The same one under two names is fine; two of one name are not, as one would be registered in
    place of the other.
    """
    found: dict[str, WorkflowDef] = {}
    for name, value in vars(module).items():
        if not isinstance(value, Workflow | WorkflowDef):
            continue
        try:
            definition = value.build() if isinstance(value, Workflow) else value
        except Exception as error:
            raise CliError(
                f"{target.text}: workflow {name!r}: {' '.join(str(error).split())}"
            ) from error
        other = found.setdefault(definition.name, definition)
        if other != definition:
            raise CliError(
                f"{target.text} has two workflows called {definition.name!r}; rename one"
            )
    return tuple(found.values())


def _shown(filename: str) -> str:
    """Return a file's name as the user would type it: relative, if it is below where we are."""
    path = Path(filename)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename
