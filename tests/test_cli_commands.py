"""The commands against a real server and engine; in processes of their own where signals count."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import COMMAND, WORKER, Done, cli, cli_process, environment, gone, held, refuses

from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.requests import runs, unserved
from trio_dagnats.local import Server

NEW_TEST_PATIENCE = 60.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an engine and a worker: ``dev`` itself."""
    directory = tmp_path_factory.mktemp("dev")
    (directory / "worker.py").write_text(WORKER)
    # No grace: some tests leave handlers that run for an hour.
    with held(directory, "dev", "--port", "0", "--grace", "0") as dev:
        dev.says("ready")
        yield dev.url
        assert dev.ends(signal.SIGINT) == Exit.DONE


def refused(done: Done, code: Exit) -> str:
    """Check that it failed with one sentence and nothing else; return that."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def started(url: str, workflow: str) -> str:
    """Start a run and return its id."""
    return cli("start", workflow, url=url).stdout.strip()


def test_start_and_wait_prints_the_output(url: str) -> None:
    done = cli_process("start", "echo", "--input", '{"x": 1}', "--wait", url=url)

    assert (done.returncode, json.loads(done.stdout)) == (Exit.DONE, {"x": 1})
    assert done.stderr.startswith("run ")


def test_a_failed_run_is_one_sentence_and_exit_code_1(url: str) -> None:
    done = cli("start", "boom", "--wait", url=url)

    assert done.returncode == Exit.RUN_FAILED
    assert done.stdout == ""
    assert "failed: step 'boom': ValueError: no luck" in done.stderr
    assert "Traceback" not in done.stderr


def test_show_draws_a_run_as_a_tree_without_colour_in_a_pipe(url: str) -> None:
    cli("start", "boom", "--wait", url=url)
    done = cli_process("show", "last", url=url)

    head, step, first, second = done.stdout.splitlines()
    assert head.startswith("boom  ")
    assert "  failed  " in head
    assert step.startswith("└── boom  failed")
    assert first.endswith("ValueError: no luck")
    assert "attempt 2  failed" in second
    assert "\x1b" not in done.stdout


def test_show_and_runs_write_json(url: str) -> None:
    run_id = json.loads(cli("start", "echo", "--wait", "--json", url=url).stdout)["run_id"]
    shown = json.loads(cli("show", run_id[:12], "--json", url=url).stdout)
    listed = json.loads(cli("runs", "--json", "--workflow", "echo", url=url).stdout)

    assert shown["run_id"] == run_id == listed[0]["run_id"]
    (step,) = shown["steps"]
    (attempt,) = step["attempts"]
    assert (step["status"], attempt["end"], attempt["number"]) == ("completed", "completed", 1)
    assert attempt["seconds"] >= 0


def test_runs_lists_whole_ids_in_a_pipe(url: str) -> None:
    run_id = started(url, "echo")
    done = cli("runs", "--limit", "1", url=url)

    head, line = done.stdout.splitlines()
    assert head.split()[:3] == ["RUN", "WORKFLOW", "STATUS"]
    assert line.split()[:2] == [run_id, "echo"]


def test_tail_prints_events_and_chunks_until_the_end(url: str, tmp_path: Path) -> None:
    run_id = started(url, "chatty")
    with held(tmp_path, "tail", run_id, url=url) as tail:
        tail.says("step.started")
        assert cli("signal", run_id, "go", url=url).returncode == Exit.DONE
        assert tail.process.wait(30) == Exit.DONE
        lines = tail.out.read_text().splitlines()

    assert [line.split()[2] for line in lines if line.split()[1] == "run"] == [
        "workflow.started",
        "workflow.completed",
    ]
    assert any("stream" in line and line.endswith("a chunk") for line in lines)


def test_a_signal_carries_json(url: str) -> None:
    run_id = started(url, "waits")
    cli("signal", run_id, "go", "--data", '{"by": "Ada"}', url=url)
    done = cli("tail", run_id, "--json", url=url)

    last = [json.loads(line) for line in done.stdout.splitlines()][-2:]
    assert [event["type"] for event in last] == ["step.completed", "workflow.completed"]
    assert last[0]["payload"] == {"by": "Ada"}


def test_cancel_ends_a_run_once(url: str) -> None:
    run_id = started(url, "long")
    done = cli("cancel", run_id, "--json", url=url)

    assert json.loads(done.stdout) == {"run_id": run_id, "status": "cancelled"}
    assert "is cancelled already" in refused(cli("cancel", run_id, url=url), Exit.NOT_FOUND)


def test_workers_lists_who_serves_what(url: str) -> None:
    assert "boom, chatty, echo, long, waits" in cli("workers", url=url).stdout
    (worker,) = json.loads(cli("workers", "--json", url=url).stdout)
    assert worker["language"] == "python"


def test_ps_names_the_line_on_which_a_handler_stands(url: str) -> None:
    run_id = started(url, "waits")
    line = 'in waits: return await ctx.wait_for_signal("go")'
    shown = cli("ps", url=url).stdout
    while f"{run_id}.waits attempt 1 of waits: waiting (signal go)" not in shown:
        shown = cli("ps", url=url).stdout

    assert line in shown
    (worker,) = json.loads(cli("ps", "--json", url=url).stdout)
    (attempt,) = [found for found in worker["attempts"] if found["run_id"] == run_id]
    assert attempt["tasks"]["place"]["text"] == 'return await ctx.wait_for_signal("go")'
    assert cli("cancel", run_id, url=url).returncode == Exit.DONE


def test_ps_of_an_unknown_worker_finds_none(url: str) -> None:
    done = cli("ps", "--worker", "nobody", url=url)

    assert (done.returncode, done.stdout, done.stderr) == (Exit.DONE, "", "no workers\n")


def test_a_task_that_nobody_serves_is_named_while_a_run_waits(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unserved, "AFTER", 0.0)
    done = cli("start", "nobody", "--wait", "--timeout", "1", url=url)

    assert done.returncode == Exit.TOO_SLOW
    assert "warning: nobody serves the task 'nobody' (step 'nobody' of workflow" in done.stderr
    assert "the run goes on" in done.stderr


@pytest.mark.parametrize("command", ["start", "tail"])
def test_ctrl_c_ends_a_waiting_command_cleanly(url: str, tmp_path: Path, command: str) -> None:
    arguments = ["start", "long", "--wait"]
    if command == "tail":
        arguments = ["tail", started(url, "long")]
    with held(tmp_path, *arguments, url=url) as waiting:
        waiting.says("run ")
        assert waiting.ends(signal.SIGINT) == Exit.INTERRUPTED
        said = waiting.err.read_text()

    assert "Traceback" not in said
    assert ("goes on" in said) == (command == "start")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("show", "0123abcd"), Exit.NOT_FOUND, "there is no run '0123abcd'"),
        (("signal", "0123abcd", "go"), Exit.NOT_FOUND, "there is no run '0123abcd'"),
        (("show", "a b"), Exit.USAGE, "run id 'a b' is not legal"),
        (("start", "ech"), Exit.NOT_FOUND, "no workflow 'ech' is registered; there are boom, "),
        (("start", "echo", "--input", "{x: 1}"), Exit.USAGE, "--input is not JSON"),
        (("start", "echo", "--input", "@/no/file"), Exit.USAGE, "'/no/file' cannot be read"),
        (("runs", "--limit", "0"), Exit.USAGE, "Invalid value for '--limit'"),
        (("shw",), Exit.USAGE, "No such command 'shw'"),
        (("runs", "--nats", "ftp://x"), Exit.USAGE, "'ftp://x' is no server URL"),
        (("runs", "--nats", "nats//x y"), Exit.USAGE, "'nats//x y' is no server URL"),
    ],
)
def test_bad_input_is_one_sentence(
    url: str, arguments: tuple[str, ...], code: Exit, says: str
) -> None:
    assert says in refused(cli(*arguments, url=url), code)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "CONNECT_TIMEOUT", 0.2)
    line = refused(cli("runs", "--nats", "nats://127.0.0.1:1"), Exit.NO_ENGINE)

    assert "cannot connect to nats://127.0.0.1:1" in line


@pytest.mark.parametrize("arguments", [("runs",), ("start", "echo")])
def test_a_server_without_an_engine(nats_server: Server, arguments: tuple[str, ...]) -> None:
    line = refused(cli(*arguments, url=nats_server.url), Exit.NO_ENGINE)

    assert f"the server at {nats_server.url} has no DagNats engine; start" in line


def test_dev_joins_a_server_and_leaves_it_as_it_is(url: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER.replace('"nobody", ', "").replace("boom", "other"))
    with held(tmp_path, "dev", "--nats", url, "--grace", "0") as second:
        second.says("ready")
        workers = json.loads(cli("workers", "--json", url=url).stdout)
        assert len(workers) == 2
        assert cli("start", "other", "--wait", url=url).returncode == Exit.RUN_FAILED
        assert second.ends(signal.SIGINT) == Exit.DONE

    assert len(json.loads(cli("workers", "--json", url=url).stdout)) == 1


def test_run_serves_the_server_that_is_given_and_drains(url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WORKER)
    with held(tmp_path, "run", "mine", url=url) as serving:
        serving.says("connected to")
        assert serving.ends(signal.SIGTERM) == Exit.DONE

        said = serving.err.read_text()
    assert "draining" in said
    assert "Traceback" not in said


def test_ctrl_c_while_user_code_is_imported(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)")
    with held(tmp_path, "run", "slow.py") as slow:
        slow.says("importing")
        assert slow.ends(signal.SIGINT) == Exit.INTERRUPTED
        assert slow.err.read_text().strip() == ""


def test_the_command_says_what_to_install_without_its_extra() -> None:
    code = (
        "import sys; sys.modules['click'] = sys.modules['rich'] = None\n"
        "from trio_dagnats.cli.main import main; sys.exit(main(['runs']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 2
    assert done.stderr == (
        "trio-dagnats: the command line needs click and rich; install it with "
        "`pip install 'trio-dagnats[cli,local]'`\n"
    )


def test_version_and_completion() -> None:
    assert cli("--version").stdout.startswith("trio-dagnats 0.")
    assert "_TRIO_DAGNATS_COMPLETE=bash_complete" in cli("completion", "bash").stdout
    env = {**environment(""), "_TRIO_DAGNATS_COMPLETE": "bash_complete"}
    env |= {"COMP_WORDS": "trio-dagnats sh", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["plain,show"]


def test_a_reader_that_goes_away_is_no_error(url: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "runs"],
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_a_new_project_has_a_test_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("new", "my-agents").returncode == Exit.DONE
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path / "my-agents",
        capture_output=True,
        text=True,
        timeout=NEW_TEST_PATIENCE,
        check=False,
    )

    assert "2 passed" in done.stdout
    assert "exists already" in refused(cli("new", "my-agents"), Exit.USAGE)
    assert "is no name" in refused(cli("new", "../x"), Exit.USAGE)


def test_killing_dev_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    with held(tmp_path, "dev", "--port", "0") as dev:
        dev.says("ready")
        (worker,) = json.loads(cli("workers", "--json", url=dev.url).stdout)
        dev.process.kill()
        dev.process.wait()

    assert gone(worker["pid"])
    assert refuses(dev.url)
