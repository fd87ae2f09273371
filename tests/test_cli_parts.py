"""The pure parts of the command line: finding code, errors and codes, texts, tables and trees."""

import io
import json
import sys
from pathlib import Path

import pytest
import trio
from rich.console import Console, RenderableType

from trio_dagnats import errors
from trio_dagnats.cli import app, child_link, exits, new, options
from trio_dagnats.cli.dev import command as dev
from trio_dagnats.cli.dev.board import MOST_RUNS, Board
from trio_dagnats.cli.exits import CliError, Exit, explain
from trio_dagnats.cli.output import documents, render, texts
from trio_dagnats.cli.output.screen import Screen
from trio_dagnats.cli.requests.unserved import warning
from trio_dagnats.cli.target import load, locate
from trio_dagnats.client import (
    AttemptTree,
    RunStatus,
    SourceLine,
    StepState,
    StepStatus,
    TaskTree,
    WorkerAttempts,
    WorkflowDef,
    WorkflowRun,
)
from trio_dagnats.client.stored import Unserved, unserved
from trio_dagnats.client.timeline import timeline
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.run import MapInstance
from trio_dagnats.wire.text import NS, parse_rfc3339

WORKER = 'from trio_dagnats import Worker, Workflow\nworker = Worker("nats://x:1")\n'
CREATED = "2026-01-01T00:00:00Z"
NOW_NS = parse_rfc3339("2026-01-01T00:01:05Z")


def drawn(renderable: RenderableType, width: int = 80) -> list[str]:
    """Return what a terminal of that width would show, without colour."""
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def a_run(*, status: RunStatus = RunStatus.RUNNING, **steps: StepState) -> WorkflowRun:
    return WorkflowRun(
        run_id="0123456789abcdef", workflow_id="w", status=status, steps=steps, created_at=CREATED
    )


def event(kind: str, second: float, step_id: str = "a", payload: bytes = b"") -> HistoryEvent:
    return HistoryEvent(
        type=kind,
        run_id="0123456789abcdef",
        step_id=step_id,
        timestamp_ns=parse_rfc3339(CREATED) + round(second * NS),
        payload=payload,
        worker_id="w1",
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory from which code can be loaded without a trace afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "mine.py has no worker; make one at its top level"),
        (f'{WORKER}b = Worker("x")\n', "mine.py has 2 workers; say which: mine.py:b or mine.py:w"),
        ("\nraise ValueError('no\\nluck')\n", "mine.py, line 2: ValueError: no luck"),
        ("import nothing_so\n", "mine.py, line 1: ModuleNotFoundError: No module named"),
        ("def x(:\n", "mine.py, line 1: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)\n", "mine.py: it ended by sys.exit(3) on import"),
        (f'{WORKER}w = Workflow("empty")\n', "mine.py: workflow 'w': not a workflow: steps"),
    ],
)
def test_a_module_that_cannot_be_served_is_one_sentence(here: Path, text: str, says: str) -> None:
    (here / "mine.py").write_text(text)

    with pytest.raises(CliError) as caught:
        load(locate("mine.py", here))
    assert str(caught.value).startswith(says)
    assert caught.value.code is Exit.USAGE


@pytest.mark.parametrize("text", ["mine.py", "./mine.py", "mine.py:worker", "mine", "mine:worker"])
def test_a_worker_and_its_workflows_are_found_by_file_and_by_module(here: Path, text: str) -> None:
    step = 'flow = Workflow("flow")\nflow.step("a")\nsame = flow\n'
    (here / "mine.py").write_text(f"import beside\n{WORKER}{step}")
    (here / "beside.py").touch()
    found = load(locate(text, here))

    assert [workflow.name for workflow in found.workflows] == ["flow"]


def test_a_file_in_a_package_is_imported_under_its_whole_name(here: Path) -> None:
    (here / "pkg" / "sub").mkdir(parents=True)
    for package in (here / "pkg", here / "pkg" / "sub"):
        (package / "__init__.py").touch()
    (here / "pkg" / "sub" / "mine.py").write_text(f"from pkg import sub\n{WORKER}")
    target = locate("pkg/sub/mine.py", here)

    assert (target.module, target.root) == ("pkg.sub.mine", here)
    assert load(target).workflows == ()


def test_a_file_that_is_called_like_a_loaded_module_is_itself(here: Path) -> None:
    (here / "json.py").write_text(WORKER)

    assert repr(load(locate("json.py", here)).worker).startswith("<Worker worker-")


@pytest.mark.parametrize("text", ["", ":worker", "my worker", "a..b", "a-b"])
def test_what_is_neither_a_file_nor_a_module(here: Path, text: str) -> None:
    with pytest.raises(CliError, match="is neither a file"):
        locate(text, here)


def test_a_directory_is_its_package(here: Path) -> None:
    (here / "__init__.py").write_text(WORKER)

    assert load(locate(".", here)).workflows == ()


def test_what_looks_like_an_emoji_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.show("two:a:b")
    screen.say("two:a:b")

    assert capsys.readouterr() == ("two:a:b\n", "two:a:b\n")


def test_what_is_said_while_a_view_is_drawn_goes_to_the_console_that_draws_it() -> None:
    drawing, other, file = io.StringIO(), io.StringIO(), io.StringIO()
    screen = Screen()
    screen.out = Console(file=drawing, force_terminal=True)
    screen.err = Console(file=other, force_terminal=True)
    with screen.above_view():
        screen.say("above")
        screen.err = Console(file=file)
        screen.say("not on the screen")
    screen.err = Console(file=other, force_terminal=True)
    screen.say("below")

    assert drawing.getvalue() == "above\n"
    assert (other.getvalue(), file.getvalue()) == ("below\n", "not on the screen\n")


def test_a_file_that_is_not_there(here: Path) -> None:
    with pytest.raises(CliError, match=r"there is no file 'mine.py'; `trio-dagnats new NAME`"):
        locate("mine.py", here)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunFailed("x"), Exit.RUN_FAILED),
        (errors.UsageError("x"), Exit.USAGE),
        (errors.ConnectError("x"), Exit.NO_ENGINE),
        (errors.NotStored("x"), Exit.NO_ENGINE),
        (errors.Missing("x"), Exit.NO_ENGINE),
        (errors.EngineError("x"), Exit.NO_ENGINE),
        (errors.Refused("x"), Exit.NO_ENGINE),
        (errors.TooLarge("x"), Exit.USAGE),
        (CliError("x", Exit.NOT_FOUND), Exit.NOT_FOUND),
        (trio.TooSlowError(), Exit.TOO_SLOW),
        (PermissionError("x"), Exit.USAGE),
        (KeyError("x"), Exit.BUG),
    ],
)
def test_every_error_has_its_code_and_one_line(error: BaseException, code: Exit) -> None:
    text, found = explain(error)

    assert found is code
    assert "\n" not in text


def test_no_password_is_shown_with_a_server_that_has_no_engine() -> None:
    text, code = explain(errors.Missing("no bucket 'workflow_defs'"), "nats://me:secret@host:4222")

    assert "the server at nats://host:4222 has no DagNats engine" in text
    assert "secret" not in text
    assert code is Exit.NO_ENGINE


def test_dev_shows_no_password_in_its_title(here: Path) -> None:
    (here / "worker.py").touch()
    plan = dev.Plan(locate("worker.py", here), options.Setup(), 0, None, 1.0)

    title = dev._title(plan, "nats://me:secret@host:4222")
    assert title == "worker.py on nats://host:4222; Ctrl-C ends it"


def test_every_exit_code_has_a_meaning_that_fits_80_columns() -> None:
    assert exits.MEANINGS.keys() == set(Exit)
    assert all(len(line) <= 78 for line in exits.table().splitlines())


def test_the_docs_have_every_command_and_every_exit_code() -> None:
    written = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()

    for name, command in app.cli.commands.items():
        assert command.hidden or f"| `{name}" in written, name
    for code, meaning in exits.MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in written.replace("`", ""), code


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.00 s"),
        (0.254, "0.25 s"),
        (12.34, "12.3 s"),
        (245, "4 m 05 s"),
        (11_040, "3 h 04 m"),
        (300_000, "3 d 11 h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert texts.duration(round(seconds * NS)) == text


@pytest.mark.parametrize("text", ["{x: 1}", "", "NaN,", "'a'"])
def test_json_that_is_none_is_refused_with_the_way_to_quote_it(text: str) -> None:
    with pytest.raises(CliError, match=r"--input is not JSON: .*; quote it for the shell"):
        options.read_json(text, "--input")


def test_json_comes_from_the_option_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text("[1]")

    assert options.read_json('{"a": 1}', "--input") == {"a": 1}
    assert options.read_json(f"@{tmp_path / 'in.json'}", "--input") == [1]
    assert options.read_json(None, "--input") is None


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "nats://localhost:4222"),
        ({"NATS_URL": "nats://b:1"}, "nats://b:1"),
        ({"NATS_URL": "nats://b:1", "DAGNATS_NATS_URL": "a:1"}, "nats://a:1"),
    ],
)
def test_the_url_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str
) -> None:
    for name in options.URL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert options.Setup().url == url
    assert options.Setup(given="nats://c:1").url == "nats://c:1"


def test_lines_are_put_together_from_pieces() -> None:
    written = child_link.write("loaded", ["é"]) + child_link.write("ready", 1)
    pieces = child_link.Lines()

    found = [line for byte in written for line in pieces.feed(bytes([byte]))]
    assert found == [{"loaded": ["é"]}, {"ready": 1}]


def test_tasks_that_nobody_serves() -> None:
    steps = [{"id": "a", "task": "x"}, {"id": "b", "task": "y"}, {"id": "c", "task": "y"}]
    definition = WorkflowDef.read({"name": "w", "steps": steps})
    worker = WorkerRegistration(worker_id="1", task_types=("x",))

    assert unserved(definition, [worker], set()) == [Unserved("y", "", ("b", "c"))]
    assert unserved(definition, [], {"task.x.>"}) == [
        Unserved("x", "", ("a",)),
        Unserved("y", "", ("b", "c")),
    ]


@pytest.mark.parametrize(
    ("filters", "missing"),
    [
        ({"task.x.>"}, []),
        ({"task.x.gpu.>"}, ["", "cpu"]),
        ({"task.x.gpu.>", "task.x.cpu.>"}, [""]),
        ({"task.y.>"}, []),  # it reads its tasks in a way that is not ours, as partitions do
    ],
)
def test_groups_that_nobody_serves(filters: set[str], missing: list[str]) -> None:
    groups = ["", "gpu", "cpu"]
    steps = [{"id": f"s{group}", "task": "x", "worker_group": group} for group in groups]
    definition = WorkflowDef.read({"name": "w", "steps": steps})
    worker = WorkerRegistration(worker_id="1", task_types=("x",))

    assert [found.group for found in unserved(definition, [worker], filters)] == missing


def test_the_warning_names_task_group_step_and_workflow() -> None:
    assert warning("w", Unserved("x", "gpu", ("a", "b"))) == (
        "nobody serves the task 'x' in the group 'gpu' (step 'a', 'b' of workflow 'w'): its runs "
        "wait until a worker does"
    )


def test_a_tree_says_what_each_attempt_did() -> None:
    run = a_run(a=StepState(status=StepStatus.RUNNING, attempts=2), b=StepState())
    found = timeline(
        run,
        [
            event("step.started", 1),
            event("step.failed", 2.5, payload=b'{"error":"[bold]no\\nluck"}'),
            event("step.started", 5),
        ],
    )

    assert drawn(render.run_tree(found, NOW_NS, whole_ids=False)) == [
        "w  01234567  running  1 m 05 s",
        "├── a  running  1 m 04 s  2 attempts",
        "│   ├── attempt 1  failed  1.50 s  [bold]no luck",
        "│   └── attempt 1  running  1 m 00 s",
        "└── b  pending",
    ]


def test_a_map_shows_its_count_and_its_failed_instances() -> None:
    instances = (MapInstance(status=StepStatus.COMPLETED), MapInstance(status=StepStatus.FAILED))
    run = a_run(a=StepState(status=StepStatus.RUNNING, map_instances=instances))
    found = timeline(
        run,
        [
            event("step.started", 1, "a.map.0"),
            event("step.started", 1, "a.map.1"),
            event("step.completed", 2, "a.map.0"),
            event("step.failed", 3, "a.map.1", b'"no"'),
        ],
    )

    assert drawn(render.run_tree(found, NOW_NS))[1:] == [
        "└── a  running  1 m 04 s  1 of 2",
        "    └── map.1 attempt 1  failed  2.00 s  no",
    ]


def test_a_long_loop_shows_its_last_iterations() -> None:
    run = a_run(a=StepState(status=StepStatus.RUNNING, iterations=30))
    events = [event(kind, at) for at in range(30) for kind in ("step.started", "step.continue")]
    shown = drawn(render.run_tree(timeline(run, events), NOW_NS, most=2))

    assert shown[1].endswith("31 iterations")
    assert [line.strip(" ├└─") for line in shown[2:]] == [
        "28 earlier",
        "iteration 29  continued  0.00 s",
        "iteration 30  continued  0.00 s",
    ]


def test_a_table_of_runs_fits_80_columns() -> None:
    failed = StepState(status=StepStatus.FAILED, error="a long text " * 20)
    shown = drawn(render.runs_table([a_run(a=failed)], NOW_NS, whole_ids=False))

    assert shown[1].startswith("01234567  w         running")
    assert max(map(len, shown)) <= 80
    assert "a: a long" in shown[1]


def test_what_an_event_says_cannot_drive_the_terminal() -> None:
    line = render.event_line(event("step.failed", 1, payload=b'"\\u001b[31mred"'), run="r")

    assert "\x1b" not in line.plain
    assert line.plain.endswith(" [31mred")


def test_documents_leave_out_nothing() -> None:
    run = a_run(status=RunStatus.COMPLETED, a=StepState(status=StepStatus.COMPLETED, output="Nw=="))
    found = timeline(run, [event("step.started", 1), event("step.completed", 2)])

    (step,) = json.loads(json.dumps(documents.of_timeline(found)))["steps"]
    assert (step["output"], step["seconds"]) == (7, 1.0)
    assert step["attempts"][0]["worker_id"] == "w1"


def test_the_board_shows_the_newest_runs_only() -> None:
    board = Board("title")
    assert drawn(board.draw(NOW_NS))[0] == "title"
    for number in range(MOST_RUNS + 5):
        run_id = f"run{number:05d}"
        board.take(HistoryEvent(type="step.started", run_id=run_id, step_id="a"))
        run = a_run(a=StepState(status=StepStatus.RUNNING)).model_copy(update={"run_id": run_id})
        board.put(timeline(run, board.events(run_id)))

    shown = [line.split()[1] for line in drawn(board.draw(NOW_NS)) if line.startswith("w ")]
    assert shown == [f"run{number:05d}" for number in reversed(range(5, MOST_RUNS + 5))]
    assert board.changed == set(shown)


def test_a_project_has_what_it_needs() -> None:
    made = new.contents("my-agents")

    assert set(made) == {
        "README.md",
        "conftest.py",
        "pyproject.toml",
        "test_worker.py",
        "worker.py",
    }
    assert 'Workflow("my-agents")' in made["worker.py"]


@pytest.mark.parametrize("name", ["", "a b", "../x", "A", "-a", "a--b", "x" * 3 + "/"])
def test_a_name_that_is_none_for_a_project(name: str) -> None:
    with pytest.raises(CliError, match="is no name for a project"):
        new.contents(name)


def test_a_worker_that_does_not_answer_is_drawn_as_such() -> None:
    drawn = render.worker_attempts(WorkerAttempts(worker_id="w", hostname="h", pid=3))

    assert drawn.plain.startswith("w  h  pid 3  does not answer: it has died")


def test_a_worker_is_drawn_with_its_attempts_below_it() -> None:
    place = SourceLine("app.py", 3, "fetch", "await get()")
    attempt = AttemptTree(
        run_id="r", step_id="s", attempt=1, task_type="t", tasks=TaskTree("t", place)
    )

    drawn = render.worker_attempts(WorkerAttempts(worker_id="w", attempts=(attempt,)))

    assert drawn.plain.splitlines() == [
        "w  1 in flight",
        "  r.s attempt 1 of t: working, 0.0 s old, lease 0.0 s",
        "  └─ t  app.py:3 in fetch: await get()",
    ]
