import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory

import pytest
import trio

from trio_dagnats.errors import UsageError
from trio_dagnats.local.scratch import PREFIX, sweep
from trio_dagnats.local.server import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import StreamSpec

PARENT = """
import sys, time
from trio_dagnats.local.server import Server
with Server() as server:
    guard, process = server._process.pid, server._server_pid()
    print(server.port, server._scratch.path, guard, process, flush=True)
    time.sleep(600)
"""


def is_open(port: int) -> bool:
    """Say whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def wait_until_closed(port: int) -> None:
    """Return when nobody listens on the port any more."""
    with trio.fail_after(15):
        while is_open(port):
            await trio.sleep(0.02)


async def test_a_server_runs_for_the_length_of_its_block() -> None:
    """Inside the block it takes connections; after it port and files are gone."""
    async with Server() as server:
        assert is_open(server.port)
        store = server._store()
    assert not is_open(server.port)
    assert not store.exists()


def test_it_is_a_plain_context_manager_too() -> None:
    """Fixtures that outlive a trio run use the same class."""
    with Server() as server:
        assert is_open(server.port)
    assert not is_open(server.port)


async def test_a_given_store_is_kept(tmp_path: Path) -> None:
    """What a server stored is there for the next one on the same directory."""
    deadline = trio.current_time() + 30
    async with Server(store_dir=tmp_path / "js") as server, open_broker(server.url) as broker:
        await broker.ensure_stream(StreamSpec(name="S", subjects=("s.>",)), deadline=deadline)
        await broker.store("s.1", b"kept", deadline=deadline)
    async with Server(store_dir=tmp_path / "js") as server, open_broker(server.url) as broker:
        record = await broker.last_record("S", "s.1", deadline=deadline)
    assert record is not None
    assert record.body == b"kept"


async def test_a_killed_server_comes_back_on_its_port() -> None:
    """Killing and restarting keeps port and files."""
    async with Server() as server:
        port = server.port
        server.kill()
        await wait_until_closed(port)
        server.restart()
        assert server.port == port
        assert is_open(port)


async def test_a_running_server_is_not_started_twice() -> None:
    """A second start would orphan the first process."""
    async with Server() as server:
        with pytest.raises(UsageError, match="is running"):
            server.restart()


async def test_a_port_in_use_is_named() -> None:
    """The error names the port, not a stack of log lines."""
    async with Server() as first:
        with pytest.raises(UsageError, match=f"port {first.port} is in use"):
            async with Server(port=first.port):
                pass


@pytest.mark.parametrize("port", [0, -1, 70_000])
def test_an_impossible_port_is_refused(port: int) -> None:
    """A number that is no port is refused before anything starts."""
    with pytest.raises(UsageError, match="port must be"):
        Server(port=port)


async def test_a_store_that_is_no_directory_is_named(tmp_path: Path) -> None:
    """A path that cannot be written is refused by its name."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="file/js"):
        async with Server(store_dir=file / "js"):
            pass


class OtherProgram:
    """A program with a server, in a process of its own; it may be killed in any way."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=PIPE, text=True)
        assert self._process.stdout is not None
        port, path, guard, server = self._process.stdout.readline().split()
        self.port, self.path, self.guard, self.server = (
            int(port),
            Path(path),
            int(guard),
            int(server),
        )
        assert is_open(self.port)

    def kill(self) -> None:
        """Kill the program itself."""
        with self._process:
            self._process.kill()


async def wait_until_swept(path: Path) -> None:
    """Return when a new server would delete the directory, or has."""
    with trio.fail_after(15):
        while path.exists():
            sweep()
            await trio.sleep(0.02)


async def test_the_server_ends_with_a_killed_parent_and_the_next_one_deletes_its_files() -> None:
    """Even kill -9 of the program leaves no server behind, and no directory for long."""
    other = OtherProgram()

    other.kill()

    await wait_until_closed(other.port)
    await wait_until_swept(other.path)


async def test_a_new_server_leaves_the_files_of_those_that_run_alone() -> None:
    other = OtherProgram()
    async with Server() as server:
        sweep()

        assert (other.path / "store").is_dir()
        assert server._store().is_dir()
    other.kill()
    await wait_until_swept(other.path)


async def test_the_files_of_a_server_stay_while_it_runs_whoever_else_was_killed() -> None:
    other = OtherProgram()
    os.kill(other.guard, signal.SIGKILL)
    other.kill()

    sweep()

    assert (other.path / "store").is_dir()
    os.kill(other.server, signal.SIGKILL)
    await wait_until_swept(other.path)


def test_what_is_not_surely_ours_is_not_deleted(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix=PREFIX) as without_lock:
        link = Path(without_lock).with_name(f"{PREFIX}link-{tmp_path.name}")
        (tmp_path / "lock").write_text("")
        link.symlink_to(tmp_path)

        sweep()

        assert Path(without_lock).is_dir()
        assert (tmp_path / "lock").exists()
        link.unlink()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server() -> None:
    """The child has a session of its own."""
    async with Server() as server:
        pid = server._server_pid()
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)
