"""``dev`` in a process of its own: reloading, bad input, and the live view in a terminal."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import COMMAND, PATIENCE, Held, cli, cli_process, environment, gone, held

from trio_dagnats.cli.exits import Exit
from trio_dagnats.local import Server

SLOW = """
import trio
from trio_dagnats import TaskContext, Worker, Workflow

worker = Worker("nats://nobody:1")
workflow = Workflow("w")
workflow.step("work")


@worker.handle("work")
async def work(ctx: TaskContext) -> str:
    await trio.sleep(3600)
    return "old"
"""
QUICK = SLOW.replace("await trio.sleep(3600)", "").replace('"old"', '"new"')
IN_THREAD = """
import time
from pathlib import Path
from trio_dagnats import TaskContext, Worker, Workflow

worker = Worker("nats://nobody:1")
workflow = Workflow("w")
workflow.step("work")


@worker.handle("work")
def work(ctx: TaskContext) -> str:
    while not Path("go").exists():
        time.sleep(0.02)
    return "old"
"""


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Held]:
    """``dev`` with a worker whose handler takes an hour."""
    (tmp_path / "worker.py").write_text(SLOW)
    with held(tmp_path, "dev", "--port", "0", "--grace", "0.1") as found:
        found.says("ready")
        yield found


def pid_of_worker(dev: Held) -> int:
    (worker,) = json.loads(cli("workers", "--json", url=dev.url).stdout)
    pid: int = worker["pid"]
    return pid


def started(dev: Held) -> str:
    """Start a run and wait until its handler runs."""
    run_id = cli("start", "w", url=dev.url).stdout.strip()
    dev.says("step.started")
    return run_id


def test_a_run_in_flight_goes_over_to_the_new_version(dev: Held, tmp_path: Path) -> None:
    old = pid_of_worker(dev)
    run_id = started(dev)
    (tmp_path / "worker.py").write_text(QUICK)
    dev.says("reloaded (worker.py changed)")
    dev.says("workflow.completed")
    shown = json.loads(cli("show", run_id, "--json", url=dev.url).stdout)

    assert shown["steps"][0]["output"] == "new"
    assert shown["steps"][0]["attempts"][0]["starts"] == 2
    assert gone(old)


def test_a_handler_in_a_thread_may_end_in_the_old_version(dev: Held, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(IN_THREAD)
    dev.says("reloaded")
    run_id = started(dev)
    (tmp_path / "worker.py").write_text(QUICK)
    dev.says("reloaded", 2)
    (tmp_path / "go").touch()
    dev.says("workflow.completed")
    shown = json.loads(cli("show", run_id, "--json", url=dev.url).stdout)

    assert shown["steps"][0]["output"] == "old"


def test_a_syntax_error_is_said_once_and_the_old_worker_goes_on(dev: Held, tmp_path: Path) -> None:
    pid = pid_of_worker(dev)
    (tmp_path / "worker.py").write_text(f"def broken(:\n{QUICK}")
    dev.says("the old worker goes on")

    assert pid_of_worker(dev) == pid
    (tmp_path / "worker.py").write_text(QUICK)
    said = dev.says("reloaded")
    assert said.count("worker.py, line 1: SyntaxError: invalid syntax; the old worker goes on") == 1
    assert "Traceback" not in said


def test_an_import_that_hangs_does_not_keep_its_own_repair_away(dev: Held, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("import time\nprint('hangs')\ntime.sleep(3600)")
    dev.says("hangs")
    (tmp_path / "worker.py").write_text(QUICK)
    dev.says("reloaded")

    assert cli("start", "w", "--wait", url=dev.url).stdout == '"new"\n'


def test_a_worker_that_dies_is_named_and_comes_back_with_the_next_change(
    dev: Held, tmp_path: Path
) -> None:
    os.kill(pid_of_worker(dev), signal.SIGKILL)
    dev.says("the worker's process ended with exit code 137; it starts again when a file changes")
    (tmp_path / "worker.py").write_text(QUICK)
    dev.says("reloaded")

    assert cli("start", "w", "--wait", url=dev.url).stdout == '"new"\n'


def test_ctrl_c_hands_back_and_ends_with_zero(dev: Held) -> None:
    pid = pid_of_worker(dev)
    started(dev)

    assert dev.ends(signal.SIGINT) == Exit.DONE
    assert gone(pid)
    assert "Traceback" not in dev.err.read_text()


def test_a_second_ctrl_c_takes_the_grace_away(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SLOW)
    with held(tmp_path, "dev", "--port", "0", "--grace", "600") as dev:
        dev.says("ready")
        started(dev)
        dev.process.send_signal(signal.SIGINT)
        dev.says("draining")
        assert dev.ends(signal.SIGINT) == Exit.INTERRUPTED


def test_events_are_json_lines_and_prints_and_warnings_are_not_among_them(
    tmp_path: Path,
) -> None:
    more = """
other = Workflow("other")
other.step("wrok")
print("hello from the module")
"""
    (tmp_path / "worker.py").write_text(f"{QUICK}{more}")
    with held(tmp_path, "dev", "--port", "0", "--json") as dev:
        dev.says("ready")
        cli("start", "w", "--wait", url=dev.url)
        dev.says("workflow.completed")
        dev.says("warning: nobody serves the task 'wrok' (step 'wrok' of workflow 'other')")
        lines = [json.loads(line) for line in dev.out.read_text().splitlines()]

    assert lines[0]["type"] == "workflow.started"
    assert "hello from the module" in dev.err.read_text()


def test_a_module_that_cannot_be_served_ends_dev_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text('from trio_dagnats import Worker\nw = Worker("x")\n')
    done = cli_process("dev", "--port", "0", cwd=tmp_path)

    assert done.returncode == Exit.USAGE
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: this worker serves nothing")
    assert "Traceback" not in done.stderr


def test_a_port_in_use_and_a_directory_that_cannot_be_written(
    nats_server: Server, tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text(SLOW)
    in_use = cli_process("dev", "--port", str(nats_server.port), cwd=tmp_path)
    no_directory = cli_process("dev", "--port", "0", "--store", "worker.py/x", cwd=tmp_path)

    assert (in_use.returncode, no_directory.returncode) == (Exit.USAGE, Exit.USAGE)
    assert in_use.stderr.startswith(f"error: port {nats_server.port} is in use; give another one")
    assert no_directory.stderr.startswith("error: --store worker.py/x cannot be written")


def test_dev_on_a_server_without_an_engine(nats_server: Server, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SLOW)
    done = cli_process("dev", "--nats", nats_server.url, cwd=tmp_path)

    assert done.returncode == Exit.NO_ENGINE
    assert "no engine answers api.workflows.register on this server" in done.stderr


def read_until(fd: int, text: bytes) -> bytes:
    """Read a terminal until it shows a text."""
    seen = b""
    while text not in seen:
        seen += os.read(fd, 65536)
    return seen


def test_a_terminal_shows_runs_and_steps_in_80_columns_and_in_colour(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(QUICK)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {**environment(""), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*COMMAND, "dev", "--port", "0"], stdout=theirs, stderr=theirs, env=env, cwd=tmp_path
    ) as process:
        os.close(theirs)
        head = read_until(ours, b"no runs yet")
        url = head.split(b" on ")[1].split(b";")[0].decode()
        cli("start", "w", "--wait", url=url)
        shown = read_until(ours, "── \x1b[1mwork\x1b[0m  \x1b[32mcompleted".encode())
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == Exit.DONE
    os.close(ours)

    assert b"w\x1b[0m  " in shown
    assert b"Traceback" not in shown
