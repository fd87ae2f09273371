"""A small process that outlives nobody: it ends its child when its parent is gone.

Run as ``python -I -S guard.py COMMAND...``. Its standard input is a pipe whose other end only the
parent holds: end of file means that the parent has let go of it or was killed, even by SIGKILL.
(PDEATHSIG would follow the *thread* that started the child, and trio's cached threads end after
ten idle seconds.) Standard library only; it imports nothing of this package.
"""

import os
import select
import signal
import subprocess
import sys

GRACE = 5.0
"""Seconds that the child has to end by itself."""


def main(command: list[str]) -> int:
    """Run the command until it ends or our standard input does; return its exit code.

    A signal's is 128 + its number, as a shell has it.

    Started by ``server`` for nats-server, and by ``cli.dev.process`` for the user's worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    wake, woken = os.pipe()
    signal.signal(signal.SIGCHLD, lambda *_: os.write(woken, b"."))
    # What the parent left open for us (``pass_fds``) is meant for the child.
    child = subprocess.Popen(  # noqa: S603 - our own parent's command
        command, stdin=subprocess.DEVNULL, close_fds=False
    )
    while child.poll() is None:
        ready, _, _ = select.select([0, wake], [], [])
        if 0 in ready and not os.read(0, 1):
            return _end(child)
        if wake in ready:
            os.read(wake, 512)
    return _code(child.returncode)


def _end(child: "subprocess.Popen[bytes]") -> int:
    """End the child: ask, wait ``GRACE`` seconds, kill."""
    child.terminate()
    try:
        return _code(child.wait(GRACE))
    except subprocess.TimeoutExpired:
        child.kill()
        return _code(child.wait())


def _code(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
