"""``run --processes`` on a real server: sharing, deaths, drains, and what cannot be served."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from cli_process import COMMAND, PATIENCE, Held, cli, cli_process, environment, gone, held

from trio_dagnats import Client
from trio_dagnats.cli.exits import Exit
from trio_dagnats.client import RunStatus

THREE = ("run", "--processes", "3")
FLOWS = """
from trio_dagnats import Retry, TaskContext, Worker, Workflow

worker = Worker("nats://nobody:1")
hold = Workflow("hold")
hold.step("hold", retry=Retry(1, delay=0.01))


@worker.handle("unused")
async def unused(ctx: TaskContext) -> None: ...
"""
HOLDER = """
import os, time
from pathlib import Path
import trio
from trio_dagnats import TaskContext, Worker

worker = Worker("nats://nobody:1", worker_id="mine", concurrency=1, grace=600.0)


@worker.handle("hold", ack_wait=1.0)
async def hold(ctx: TaskContext) -> int:
    while not Path("go").exists():
        await trio.sleep(0.02)
    return os.getpid()
"""
SHORT = HOLDER.replace("grace=600.0", "grace=0.1")
ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
IN_THREAD = SHORT.replace("async def", "def").replace("await trio", "time")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an engine and a workflow whose task nobody serves: ``dev``."""
    directory = tmp_path_factory.mktemp("dev")
    (directory / "worker.py").write_text(FLOWS)
    with held(directory, "dev", "--port", "0") as dev:
        dev.says("ready")
        yield dev.url
        assert dev.ends(signal.SIGINT) == Exit.DONE


@contextmanager
def three(directory: Path, url: str, code: str = HOLDER) -> Iterator[Held]:
    """Three processes that serve."""
    (directory / "worker.py").write_text(code)
    with held(directory, *THREE, url=url) as found:
        found.says(" serves (pid ", 3)
        yield found


def pids(url: str) -> dict[str, int]:
    """Return the processes by their worker ids, without the one of ``dev``."""
    found = json.loads(cli("workers", "--json", url=url).stdout)
    return {w["worker_id"]: w["pid"] for w in found if w["worker_id"].startswith("mine")}


def at_work(url: str, count: int) -> dict[str, int]:
    """Start runs; return the processes by runs when so many handlers run."""
    run_ids = {cli("start", "hold", url=url).stdout.strip() for _ in range(count)}
    found: dict[str, int] = {}
    while found.keys() != run_ids:
        workers = json.loads(cli("ps", "--json", url=url).stdout)
        found = {a["run_id"]: w["pid"] for w in workers for a in w["attempts"] or ()}
    return found


def output(url: str, run_id: str) -> tuple[object, int]:
    """Wait for a run; return its output, and how often its task was started."""
    assert cli("tail", run_id, url=url).returncode == Exit.DONE
    (step,) = json.loads(cli("show", run_id, "--json", url=url).stdout)["steps"]
    (attempt,) = step["attempts"]
    return step["output"], attempt["starts"]


def test_three_processes_share_a_queue_under_names_of_their_own(url: str, tmp_path: Path) -> None:
    with three(tmp_path, url) as serving:
        assert pids(url).keys() == {"mine-1", "mine-2", "mine-3"}
        runs = at_work(url, 3)
        (tmp_path / "go").touch()
        done = {run_id: output(url, run_id) for run_id in runs}
        assert serving.ends(signal.SIGTERM) == Exit.DONE

    assert done == {run_id: (pid, 1) for run_id, pid in runs.items()}
    assert len(set(runs.values())) == 3


async def test_hundreds_of_tasks_complete_once_each_while_processes_are_killed(
    url: str, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    with three(tmp_path, url) as serving:
        async with Client(url) as client:
            runs = [await client.start("hold") for _ in range(200)]
            for number in (1, 2, 3):
                (pid,) = {w.pid for w in await client.workers() if w.worker_id == f"mine-{number}"}
                os.kill(pid, signal.SIGKILL)
                serving.says(" serves (pid ", 3 + number)
            with trio.fail_after(PATIENCE):
                found = [await run.wait() for run in runs]

    assert {run.status for run in found} == {RunStatus.COMPLETED}
    assert {run.steps["hold"].attempts for run in found} == {1}


def test_a_killed_process_is_replaced_and_its_task_comes_back(url: str, tmp_path: Path) -> None:
    with three(tmp_path, url) as serving:
        ((run_id, pid),) = at_work(url, 1).items()
        os.kill(pid, signal.SIGKILL)
        serving.says("was killed by SIGKILL; it starts again at once")
        serving.says(" serves (pid ", 4)
        (tmp_path / "go").touch()
        by, starts = output(url, run_id)

        assert pid not in pids(url).values()
        assert len(pids(url)) == 3
    assert (by != pid, starts) == (True, 2)


def test_sigterm_drains_all_once_each(url: str, tmp_path: Path) -> None:
    with three(tmp_path, url, SHORT) as serving:
        runs = at_work(url, 3)
        assert serving.ends(signal.SIGTERM) == Exit.DONE
        said = serving.err.read_text()

    assert said.count("draining: 1 attempts in flight, 0.1 s of grace") == 3
    assert said.count("attempt 1: handed back") == 3
    assert "Traceback" not in said
    assert pids(url) == {}
    assert all(gone(pid) for pid in runs.values())
    assert all(cli("cancel", run_id, url=url).returncode == Exit.DONE for run_id in runs)


def test_a_second_sigint_takes_the_grace_of_all_away(url: str, tmp_path: Path) -> None:
    with three(tmp_path, url) as serving:
        runs = at_work(url, 3)
        serving.process.send_signal(signal.SIGINT)
        serving.says("draining: 1 attempts in flight, 600.0 s of grace", 3)
        assert serving.ends(signal.SIGINT) == Exit.INTERRUPTED
        said = serving.err.read_text()

    assert said.count("signal received again: no more grace") == 1
    assert said.count("attempt 1: handed back") == 3
    assert all(cli("cancel", run_id, url=url).returncode == Exit.DONE for run_id in runs)


def test_a_process_that_is_told_to_drain_twice_keeps_its_grace_and_is_replaced(
    url: str, tmp_path: Path
) -> None:
    """As by systemd, which tells every process of a unit beside what the supervisor says."""
    with three(tmp_path, url) as serving:
        ((run_id, pid),) = at_work(url, 1).items()
        os.kill(pid, signal.SIGTERM)
        serving.says("draining: 1 attempts in flight, 600.0 s of grace")
        os.kill(pid, signal.SIGTERM)
        (tmp_path / "go").touch()
        assert output(url, run_id) == (pid, 1)
        serving.says("ended with exit code 0; it starts again at once")
        serving.says(" serves (pid ", 4)


def test_processes_end_with_a_supervisor_that_is_killed(url: str, tmp_path: Path) -> None:
    with three(tmp_path, url) as serving:
        runs = at_work(url, 3)
        serving.process.kill()
        assert all(gone(pid) for pid in runs.values())
        said = serving.err.read_text()

    assert said.count("attempt 1: handed back") == 3
    assert all(cli("cancel", run_id, url=url).returncode == Exit.DONE for run_id in runs)


def test_the_exit_code_tells_of_a_handler_that_does_not_end(url: str, tmp_path: Path) -> None:
    with three(tmp_path, url, IN_THREAD) as serving:
        ((run_id, pid),) = at_work(url, 1).items()
        assert serving.ends(signal.SIGTERM) == Exit.BUG
        said = serving.err.read_text()

    assert gone(pid)
    assert said.count("leaving the process with exit code 70") == 1
    assert cli("cancel", run_id, url=url).returncode == Exit.DONE


def test_a_third_sigint_kills_what_is_left(url: str, tmp_path: Path) -> None:
    with three(tmp_path, url, IN_THREAD) as serving:
        ((run_id, pid),) = at_work(url, 1).items()
        for number in (1, 2):
            serving.process.send_signal(signal.SIGINT)
            serving.says("signal received", number)
        assert serving.ends(signal.SIGINT) == 128 + signal.SIGKILL

    assert gone(pid)
    assert cli("cancel", run_id, url=url).returncode == Exit.DONE


def test_a_version_that_cannot_be_served_is_tried_again_while_others_serve(
    url: str, tmp_path: Path
) -> None:
    with three(tmp_path, url) as serving:
        (tmp_path / "worker.py").write_text("def broken(:")
        os.kill(pids(url)["mine-2"], signal.SIGKILL)
        serving.says("error: worker.py, line 1: SyntaxError: invalid syntax", 2)
        serving.says("process 2 ended with exit code 2; it starts again in 1 s")
        (tmp_path / "worker.py").write_text(HOLDER)
        serving.says("process 2 serves", 2)
        assert serving.ends(signal.SIGTERM) == Exit.DONE


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def broken(:", "worker.py, line 1: SyntaxError: invalid syntax"),
        (f"{HOLDER}other = Worker('x')", "worker.py has 2 workers; say which: "),
        ("from trio_dagnats import Worker\nworker = Worker('x')", "this worker serves nothing"),
    ],
)
def test_what_cannot_be_served_is_said_once(url: str, tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "worker.py").write_text(code)
    done = cli_process(*THREE, url=url, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert [line for line in done.stderr.splitlines() if "connected to" not in line] == [
        line for line in done.stderr.splitlines() if line.startswith(f"error: {says}")
    ]
    assert done.stderr.count(says) == 1


def test_a_server_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    options = "options=ConnectOptions(connect_timeout=0.2)"
    code = HOLDER.replace("grace=600.0", options).replace("import T", "import ConnectOptions, T")
    (tmp_path / "worker.py").write_text(code)
    done = cli_process(*THREE, "--nats", "nats://127.0.0.1:1", cwd=tmp_path)

    (line,) = done.stderr.splitlines()
    assert done.returncode == Exit.NO_ENGINE
    assert line.startswith("error: cannot connect to nats://127.0.0.1:1")


def test_a_file_that_is_not_there_starts_no_process(tmp_path: Path) -> None:
    done = cli_process(*THREE, "none.py", cwd=tmp_path)

    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("error: there is no file 'none.py'")


def test_ctrl_c_in_a_terminal_reaches_each_process_once(url: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(HOLDER)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *COMMAND[1:], *THREE],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(url),
        cwd=tmp_path,
    ) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b" serves (pid ") < 3:
            seen += os.read(ours, 65536)
        os.write(ours, b"\x03")
        while seen.count(b"draining: 0 attempts in flight, 600.0 s of grace") < 3:
            seen += os.read(ours, 65536)
        assert process.wait(PATIENCE) == Exit.DONE
    os.close(ours)

    assert seen.count(b"draining: ") == 3
    assert b"no more grace" not in seen
