"""A temporary directory that is deleted even when its program is killed: by the next one.

Each holds a locked file. The lock is the kernel's: it lives as long as one of the processes that
share it does, the program, the guard and the server, and no longer. So a directory whose lock can
be taken is nobody's.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import final

PREFIX = "trio-dagnats-server-"
LOCK = "lock"


@final
class Scratch:
    """A temporary directory of ours: made at once, deleted by :meth:`delete`.

    Attributes:
        path: the directory.
        lock: the descriptor of its lock, to be passed on to child processes that use it.

    Raises:
        OSError: the directory for temporary files cannot be written.
    """

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        unfinished = self.path / f"{LOCK}.new"
        self.lock = os.open(unfinished, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        # It has its name only now: nobody ever sees it unlocked while we live.
        unfinished.rename(self.path / LOCK)

    def delete(self) -> None:
        """Delete the directory, and let go of the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def sweep() -> None:
    """Delete the directories that killed programs have left; never one that is in use."""
    for found in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or deleted meanwhile
            _delete_if_left(found)


def _delete_if_left(path: Path) -> None:
    about = path.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        return
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(lock)
