"""Times, ids and values as people read them. Pure.

Local time, because whoever reads this sits before a clock; documents have UTC. Nothing here
fails for an odd value: what is not known is ``-``.
"""

import json
from datetime import UTC, datetime

from trio_dagnats.wire.text import NS

ID_SHOWN = 8
"""Characters of a run id in a terminal; the commands take the beginning of an id."""
NOTHING = "-"


def duration(ns: int | None) -> str:
    """Write a duration: ``0.25 s``, ``12.3 s``, ``4 m 05 s``, ``3 h 04 m``, ``2 d 13 h``.

    Two units at most, and ever coarser: nobody compares seconds in days. Below zero (two
    machines' clocks) counts as none.
    """
    if ns is None:
        return NOTHING
    seconds = max(ns, 0) / NS
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, part, part_size in (("m", 60, "s", 1), ("h", 3600, "m", 60)):
        if whole < size * 60:
            return f"{whole // size} {unit} {whole % size // part_size:02d} {part}"
    days, rest = divmod(whole, 86_400)
    return f"{days} d {rest // 3600:02d} h"


def between(started_ns: int | None, ended_ns: int | None, now_ns: int) -> str:
    """Write how long something took, or takes already.

    ``now_ns`` counts where there is no end yet.
    """
    if started_ns is None:
        return NOTHING
    return duration((now_ns if ended_ns is None else ended_ns) - started_ns)


def moment(ns: int | None) -> str:
    """Write a time of day in the local zone."""
    if ns is None:
        return "--:--:--"
    return datetime.fromtimestamp(ns / NS, UTC).astimezone().strftime("%H:%M:%S")


def date(ns: int | None) -> str:
    """Write a date and time in the local zone."""
    if ns is None:
        return NOTHING
    return datetime.fromtimestamp(ns / NS, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short(run_id: str) -> str:
    """Return as much of a run id as a terminal shows."""
    return run_id[:ID_SHOWN]


def value(found: object) -> str:
    """Write a value as one line of JSON."""
    return json.dumps(found, ensure_ascii=False)


def one_line(text: str) -> str:
    """Return a text without line ends and control characters, safe to print.

    Every sequence that moves a terminal's cursor begins with a character that goes here.
    """
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
