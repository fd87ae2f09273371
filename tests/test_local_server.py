import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trio_dagnats.errors import UsageError
from trio_dagnats.local.server import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import StreamSpec

PARENT = """
import sys, time
from trio_dagnats.local.server import Server
with Server() as server:
    print(server.port, server._temporary, flush=True)
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


async def test_the_server_ends_with_a_killed_parent() -> None:
    """Even kill -9 of the program leaves no server behind."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    port, store = (await trio.to_thread.run_sync(parent.stdout.readline)).split()
    assert is_open(int(port))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    await wait_until_closed(int(port))
    for found in sorted(Path(store).rglob("*"), reverse=True):
        found.unlink() if found.is_file() else found.rmdir()
    Path(store).rmdir()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server() -> None:
    """The child has a session of its own."""
    async with Server() as server:
        pid = server._server_pid()
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)
