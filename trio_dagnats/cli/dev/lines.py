r"""What the two sides of a worker's process say to each other: JSON objects, one a line. Pure.

::

    child   {"loaded": [workflow, ...]}   the module is imported; nothing is served yet
            {"refused": sentence}         it cannot be imported or served; the process ends
            {"ready": 1}                  the first task can arrive
    parent  {"do": "serve"}               begin to serve
            {"do": "drain"}               drain and end; so does the end of the connection
"""

import json
from typing import final

from trio_dagnats.errors import WireError

MAX_LINE = 16 * 1024 * 1024


def write(key: str, value: object) -> bytes:
    """Write a line."""
    return json.dumps({key: value}).encode() + b"\n"


@final
class Lines:
    """Puts pieces together to lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes | bytearray) -> list[dict[str, object]]:
        """Take a piece; return the lines that it completes.

        Raises:
            WireError: a line is too long.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise WireError(f"a line of more than {MAX_LINE} bytes")
        return [json.loads(line) for line in whole]
