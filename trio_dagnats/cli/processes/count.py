"""How many processes: the option ``--processes``, and the cores that are there.

``auto`` is what this process may use, not what the machine has: an affinity and a container's
quota count. A quota of 1.5 cores gives two processes: one would leave half a core unused.
"""

import math
import os
from pathlib import Path
from typing import final

import click
from click.shell_completion import CompletionItem

from trio_dagnats.cli.processes import rules

AUTO = "auto"
"""One process per usable core, counted when the command begins."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container on Linux finds its limit (cgroup v2)."""


def usable_cores() -> int:
    """Return how many cores this process may use.

    Linux tells all of it; elsewhere it is the number of cores. A quota that cannot be understood
    is none.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    quota = QUOTA.read_text(encoding="ascii") if QUOTA.is_file() else ""
    return within(quota, cores)


def within(quota: str, cores: int) -> int:
    """Return how many cores a quota leaves: ``MAX PERIOD`` in microseconds, or no limit.

    ``max`` in place of a number means that there is none. Pure, so that a test needs no
    container.
    """
    match quota.split():
        case [most, period] if most.isdecimal() and period.isdecimal() and int(period):
            return max(1, min(cores, math.ceil(int(most) / int(period))))
        case _:
            return cores


@final
class Processes(click.ParamType[int]):
    """A number of processes, or ``auto`` for one per usable core.

    A click type and not an ``IntRange``, because of the word and because the bound depends on
    the machine; its error says what would be right here.
    """

    name = "n"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read the number; one that cannot be meant is refused.

        A default comes as a number and is right by itself. Zero and negative numbers are refused
        like words.
        """
        if isinstance(value, int):
            return value  # the default
        cores, text = usable_cores(), str(value)
        if text == AUTO:
            return cores
        try:
            number = int(text)
        except ValueError:
            number = 0
        if not 1 <= number <= rules.most(cores):
            self.fail(
                f"{text!r} is no number of processes for this machine; give 1 to "
                f"{rules.most(cores)}, or {AUTO} for one per usable core ({cores})",
                param,
                ctx,
            )
        return number

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's own signature
        param: click.Parameter,  # noqa: ARG002 - the same
        incomplete: str,
    ) -> list[CompletionItem]:
        """Complete the word that is legal."""
        return [CompletionItem(AUTO)] if AUTO.startswith(incomplete) else []
