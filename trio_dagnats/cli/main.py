"""The entry point: the sentence when the extra is missing, and the border where errors end.

Only this module of the command line may be imported without the extra ``cli``.

Two errors have no traceback even here: Ctrl-C while the program is imported, and a reader of our
output that has gone (``trio-dagnats runs | head``).
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

LIBRARIES = ("click", "rich", "watchfiles")
"""What the extra ``cli`` installs; they are looked for, and not imported, to know."""
EXTRA_MISSING = 2
"""``Exit.USAGE``; that module cannot be imported here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Called by the console script, by ``python -m trio_dagnats.cli.main``, and by each process of
    ``run --processes``. ``arguments`` are those of the command line if they are None.
    """
    missing = [name for name in LIBRARIES if not _has(name)]
    if missing:
        sys.stderr.write(
            f"trio-dagnats: the command line needs {' and '.join(missing)}; install it with "
            "`pip install 'trio-dagnats[cli,local]'`\n"
        )
        return EXTRA_MISSING
    try:
        from trio_dagnats.cli.app import run  # noqa: PLC0415 - needs the extra

        return run(arguments)
    except KeyboardInterrupt:
        return 130
    finally:
        _flush()


def _has(name: str) -> bool:
    """Say whether a module could be imported, without importing it."""
    try:
        return find_spec(name) is not None
    except ValueError:  # something stands in its place, without a spec
        return False


def _flush() -> None:
    """Flush what was printed; a reader that has gone (``| head``) is no error.

    What was in the buffer then goes nowhere, so that Python does not complain at its end.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
