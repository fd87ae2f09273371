"""``register`` and ``run --register``: what is written, what would be, and what cannot be."""

import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cli_process import Done, cli, cli_process, held

from trio_dagnats import Client
from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.output import changes
from trio_dagnats.cli.output.changes import State
from trio_dagnats.client import WorkflowDef
from trio_dagnats.client.stored import changes as changes_of
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.definitions.difference import ABSENT, Difference
from trio_dagnats.wire.text import NS

PATIENCE = 20.0
WORKER = """
from trio_dagnats import TaskContext, Worker, Workflow
from trio_dagnats.client import WorkflowDef

worker = Worker("nats://nobody:1")


@worker.handle("a")
async def a(ctx: TaskContext) -> None: ...


def flow(name: str, **fields: object) -> WorkflowDef:
    return WorkflowDef.read({"name": name, "steps": [{"id": "a", "task": "a"}], **fields})

"""
REFUSED = 'refused = flow("refused", sticky="no such thing")\n'
"""Refused by both engines, each with a reason of its own."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an engine and a worker that brings no workflow: ``dev``."""
    directory = tmp_path_factory.mktemp("dev")
    (directory / "worker.py").write_text(WORKER)
    with held(directory, "dev", "--port", "0") as dev:
        dev.says("ready")
        yield dev.url
        assert dev.ends(signal.SIGINT) == Exit.DONE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of a project; what is imported from it leaves no trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def name() -> str:
    """The name of a workflow that nobody has used."""
    return f"w{uuid.uuid4().hex[:8]}"


def call(code: str, *arguments: str, url: str) -> Done:
    """Write a module and run a command on it, as a process of its own would."""
    Path("mine.py").write_text(code)
    sys.modules.pop("mine", None)
    return cli("register", "mine.py", *arguments, url=url)


def ended(*arguments: str, url: str, here: Path) -> Done:
    """Run a command to its end; ``run``, which sets up logging, in a process of its own."""
    if arguments[0] != "run":
        return cli(*arguments, url=url)
    done = cli_process(*arguments, url=url, cwd=here)
    return Done(done.returncode, done.stdout, done.stderr)


def refused(done: Done, code: Exit) -> str:
    """Check that it failed with one sentence; return that."""
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_all_workflows_of_a_module_are_registered_and_said_to_be_so(
    url: str, here: Path, name: str
) -> None:
    one, two = (f'{f"x{i}"} = flow("{name}-{i}")\n' for i in (1, 2))
    told = [call(WORKER + one, url=url), call(WORKER + one + two, url=url)]
    found = cli("start", f"{name}-2", url=url)

    assert [done.stdout.split() for done in told] == [
        ["new", f"{name}-1"],
        ["unchanged", f"{name}-1", "new", f"{name}-2"],
    ]
    assert {done.returncode for done in told} == {Exit.DONE} == {found.returncode}


def test_check_says_what_would_change_and_writes_nothing(url: str, here: Path, name: str) -> None:
    code = f'{WORKER}x = flow("{name}")\n'
    new = call(code, "--check", url=url)
    call(code, url=url)
    same = call(code, "--check", url=url)
    later = f'{WORKER}x = flow("{name}", timeout=60_000_000_000, version="2")\n'
    changed = [call(later, "--check", url=url) for _ in range(2)]

    assert (new.returncode, new.stdout) == (Exit.CHANGES, f"new        {name}\n")
    assert "nothing was written" in new.stderr
    assert same == Done(Exit.DONE, f"unchanged  {name}\n", "")
    for done in changed:
        assert done.returncode == Exit.CHANGES
        assert done.stdout.splitlines() == [
            f"changed    {name}",
            '  ~ version: "1" -> "2"',
            "  + timeout: 60 s",
        ]


def test_json_has_one_object_a_line_with_every_difference(url: str, here: Path, name: str) -> None:
    code = f'{WORKER}x = flow("{name}")\n'
    call(code, url=url)
    done = call(f'{code}x = flow("{name}", timeout=5)\n{REFUSED}', "--json", url=url)

    first, second = map(json.loads, done.stdout.splitlines())
    timeout = {"path": "timeout", "new": 5}
    assert first == {
        "workflow": name,
        "state": "changed",
        "differences": [timeout],
        "error": None,
    }
    assert (second["workflow"], second["state"]) == ("refused", "refused")
    assert "sticky" in second["error"]


def test_a_refusal_keeps_no_other_workflow_back(url: str, here: Path, name: str) -> None:
    code = f'{WORKER}{REFUSED}x = flow("{name}")\n'
    line = refused(call(code, url=url), Exit.NO_ENGINE)
    alone = refused(call(WORKER + REFUSED, url=url), Exit.NO_ENGINE)

    assert line.startswith("error: not registered: refused: the engine refused api.workflows")
    assert "sticky" in line
    assert line.endswith("; the others are registered")
    assert "others" not in alone
    assert cli("start", name, url=url).returncode == Exit.DONE


@pytest.mark.parametrize("command", [("register",), ("register", "--check"), ("run", "--register")])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (WORKER, "mine.py has no workflow; make one at its top level: workflow = Workflow('NAME')"),
        (f'{WORKER}x, y = flow("x"), flow("x", timeout=1)\n', "has two workflows called 'x'"),
        (f'{WORKER}x = Workflow("x")\n', "mine.py: workflow 'x': not a workflow: steps"),
        ("\nraise ValueError('no luck')\n", "mine.py, line 2: ValueError: no luck"),
        (f'{WORKER}b = Worker("x")\n', "mine.py has 2 workers; say which: "),
    ],
)
def test_a_module_without_registrable_workflows_is_one_sentence(
    here: Path, command: tuple[str, ...], code: str, says: str
) -> None:
    Path("mine.py").write_text(code)

    done = ended(*command, "mine.py", url="nats://127.0.0.1:1", here=here)

    assert says in refused(done, Exit.USAGE)


@pytest.mark.parametrize("command", [("register",), ("register", "--check"), ("run", "--register")])
@pytest.mark.parametrize(
    ("place", "code", "says"),
    [
        ("ftp://x", Exit.USAGE, "'ftp://x' is no server URL"),
        ("nats://127.0.0.1:1", Exit.NO_ENGINE, "cannot connect to nats://127.0.0.1:1"),
        ("", Exit.NO_ENGINE, "has no DagNats engine; start `dagnats serve` there"),
    ],
)
def test_a_place_without_an_engine_is_one_sentence(
    nats_server: Server, here: Path, command: tuple[str, ...], place: str, code: Exit, says: str
) -> None:
    quick = 'Worker("nats://nobody:1", options=ConnectOptions(connect_timeout=0.2))'
    text = WORKER.replace('Worker("nats://nobody:1")', quick)
    Path("mine.py").write_text(f'from trio_dagnats import ConnectOptions\n{text}x = flow("x")\n')
    place = place or nats_server.url
    done = ended(*command, "mine.py", "--nats", place, url=place, here=here)

    assert (done.returncode, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last


def test_a_module_needs_no_worker_to_be_registered(url: str, here: Path, name: str) -> None:
    code = f"from trio_dagnats import Workflow\nx = Workflow('{name}')\nx.step('a')\n"

    assert call(code, url=url).stdout == f"new        {name}\n"


def test_without_a_url_workflows_go_where_the_worker_would_serve(
    url: str, here: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NATS_URL", raising=False)
    monkeypatch.delenv("DAGNATS_NATS_URL", raising=False)

    code = f'{WORKER}x = flow("{name}")\n'.replace("nats://nobody:1", url)

    assert call(code, url="").stdout == f"new        {name}\n"
    assert call(code, "--check", url=url).stdout == f"unchanged  {name}\n"


def test_start_names_the_command_that_registers(url: str, name: str) -> None:
    line = refused(cli("start", name, url=url), Exit.NOT_FOUND)
    by_key = refused(cli("start", name, "--key", "k", url=url), Exit.NOT_FOUND)

    assert f"no workflow {name!r} is registered; there " in line
    assert line == by_key
    assert line.endswith("; `trio-dagnats register FILE_OR_MODULE` registers those of a module")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_run_registers_once_and_before_it_serves(
    url: str, here: Path, name: str, processes: str
) -> None:
    Path("mine.py").write_text(f'{WORKER}x = flow("{name}")\n')
    with held(here, "run", "mine.py", "--register", "--processes", processes, url=url) as serving:
        serving.says(f"new        {name}")
        while serving.process.pid not in family(url):
            assert serving.process.poll() is None
        assert cli("start", name, "--wait", url=url).returncode == Exit.DONE
        assert serving.ends(signal.SIGTERM) == Exit.DONE
        said = serving.out.read_text()

    assert said == f"new        {name}\n"


def family(url: str) -> set[int]:
    """Return the processes of the workers that are alive, and their parents."""
    pids = {worker["pid"] for worker in json.loads(cli("workers", "--json", url=url).stdout)}
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return pids | {int(stat[1]) for stat in stats}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_worker_starts_when_a_workflow_is_refused(url: str, here: Path, processes: str) -> None:
    Path("mine.py").write_text(WORKER + REFUSED)
    done = cli_process("run", "mine.py", "--register", "--processes", processes, url=url, cwd=here)

    assert done.returncode == Exit.NO_ENGINE
    assert "error: not registered: refused: " in done.stderr
    assert "serves" not in done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_while_the_module_registers_starts_no_worker(here: Path, processes: str) -> None:
    code = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    Path("slow.py").write_text(code)
    with held(here, "run", "slow.py", "--register", "--processes", processes) as slow:
        slow.says("importing")
        assert slow.ends(signal.SIGINT) == Exit.INTERRUPTED
        assert "Traceback" not in slow.err.read_text()


async def test_an_engine_that_falls_silent_is_told_with_what_is_not_registered(
    here: Path,
) -> None:
    """The buckets outlive the engine: what is compared says nothing about who answers."""
    Path("mine.py").write_text(f'{WORKER}x, y = flow("x"), flow("y")\n')
    async with Server() as server:
        async with LocalEngine(server.url):
            pass
        done = await trio.to_thread.run_sync(
            lambda: cli_process("register", "mine.py", url=server.url, cwd=here)
        )

    assert done.returncode == Exit.NO_ENGINE
    assert done.stderr.startswith("error: not registered: x, y: no engine answers api.workflows")


@asynccontextmanager
async def the_engine(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "dagnats":
        yield request.getfixturevalue("live_url")
        return
    async with Server() as server, LocalEngine(server.url):
        yield server.url


@pytest.fixture(params=["local", pytest.param("dagnats", marks=pytest.mark.live)])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """A connection to the local engine, or to a DagNats engine."""
    async with the_engine(request) as url, open_broker(url) as found:
        yield found


STEP = {"id": "a", "task": "a"}
MATCH = {"left": "a", "op": "eq", "right": "input.x"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"version": "7 <&> \u2028 é", "timeout": NS, "idempotency_key": "k"},
        {"steps": [{**STEP, "metadata": {}, "retries": 3}], "aux_steps": {}, "concurrency": {}},
        {"default_retry": {"max_attempts": 2, "strategy": "exponential", "multiplier": 2.0}},
        {"steps": [{**STEP, "on_failure": "b"}, {"id": "b", "task": "b"}]},
        {"steps": [{**STEP, "metadata": {"z": "1", "b": ""}, "retry": {"max_attempts": 0}}]},
        {"steps": [{**STEP, "rate_limit": {"limit": 1, "period": NS}, "max_task_concurrency": 2}]},
        {
            "steps": [
                STEP,
                {
                    "id": "b",
                    "task": "b",
                    "type": "map",
                    "depends_on": ["a"],
                    "config": {"max_items": 10, "later": {"x": 1.0, "y": [True, None]}},
                    "skip_if": {"step_id": "a", "field": "n", "op": "<", "value": 3},
                },
                {"id": "c", "type": "sub_workflow", "config": {"workflow": "w", "detach": False}},
                {"id": "d", "type": "sleep", "config": {"duration": NS}},
            ]
        },
        {
            "input_schema": {
                "type": "object",
                "properties": {"n": {"type": "number", "minimum": 1.5}},
            }
        },
        {
            "priority": {"key": "k", "rules": {"b": 1, "a": 0}},
            "singleton": {"mode": "skip"},
            "cancel_on": [{"event": "e", "match": MATCH}],
        },
    ],
)
async def test_what_an_engine_has_stored_is_unchanged(
    broker: Broker, name: str, fields: dict[str, object]
) -> None:
    definition = WorkflowDef.read({"name": name, "steps": [STEP], **fields})
    before = await changes_of(broker, definition)
    async with Client(broker) as client:
        await client.register(definition)

    assert (before, await changes_of(broker, definition)) == (None, [])


def drawn(*found: Difference) -> list[str]:
    """Draw a changed workflow; return the lines below its name."""
    head, *lines = (text.plain for text in changes.lines("w", State.CHANGED, found))
    assert head == "changed    w"
    return lines


def test_differences_are_short_and_durations_are_seconds() -> None:
    assert drawn(
        Difference("steps.a.timeout", 0, 1_000_500_000),
        Difference("input_schema.timeout", 1, 2),
        Difference("steps.a.config.loop_delay", NS, ABSENT),
        Difference("steps.b", ABSENT, {"id": "b"}),
        Difference("version", "\n" * 3 + "x" * 99, None),
        Difference("steps.a.metadata.x", "x" * 99 + "1" * 40, "x" * 99 + "2"),
    ) == [
        "  ~ steps.a.timeout: 0 s -> 1.0005 s",
        "  ~ input_schema.timeout: 1 -> 2",
        "  - steps.a.config.loop_delay",
        "  + steps.b",
        '  ~ version: "\\n\\n\\nxxxxxxxxxxxxxxxxxxxx... -> null',
        '  ~ steps.a.metadata.x: ...xxxxxxxx1111111111111111... -> ...xxxxxxxx2"',
    ]


def test_of_many_differences_the_first_are_shown() -> None:
    lines = drawn(*(Difference(f"metadata.{i}", "a", "b") for i in range(13)))

    assert lines[-1] == "  and 3 more; --json has all"
    assert len(lines) == changes.MOST_DIFFERENCES + 1
