"""The documentation: every Python block runs, links lead somewhere, the quick start is true."""

import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from cli_process import Held, cli_process, held
from doc_blocks import PAGES, ROOT, Block, Played, parts
from trio.testing import MockClock

from trio_dagnats.cli.exits import Exit
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.testing import Harness
from trio_dagnats.transport import open_broker
from trio_dagnats.wire.names import BUCKET_DEFS

QUICK_START = ROOT / "docs" / "quick-start.md"
VARIES = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "<run>"),
    (re.compile(r"\b\d\d:\d\d:\d\d  [0-9a-f]{8}\b"), "<event>"),
    (re.compile(r"\b\d+\.\d\d s\b"), "<time>"),
    (re.compile(r"127\.0\.0\.1:\d+|localhost:\d+"), "<server>"),
)
ELSEWHERE = "nats://host:4222"
"""The server in production, on the page."""
GREETING = ("Hello, {name}!", "Good morning, {name}!")
"""What step 4 changes."""
LOOKS = 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_python_blocks_of_a_page_run(
    page: Path, autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker):
        await Played(page, harness).play()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    found = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())

    assert not [link for link in found if not (page.parent / link).exists()]


def test_a_block_that_is_not_run_says_why() -> None:
    blocks = [part for page in PAGES for part in parts(page) if part.language == "python"]
    left_out = [block.note for block in blocks if block.note.startswith("not run")]

    assert all(re.fullmatch(r"not run: \w.{10,}", note) for note in left_out)
    assert len(left_out) <= 5 < len(blocks)


def steady(text: str) -> list[str]:
    """Return lines without what differs from run to run."""
    for pattern, word in VARIES:
        text = pattern.sub(word, text)
    return [line.rstrip() for line in text.splitlines()]


def commands(block: Block) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the commands of a console block, each with the lines that it prints."""
    for part in block.text.split("$ ")[1:]:
        command, *lines = part.splitlines()
        yield re.findall(r"'[^']*'|\S+", command), lines


def play(block: Block, directory: Path, url: str) -> None:
    """Run the commands of a block that end by themselves; compare what they print."""
    for (program, *arguments), lines in commands(block):
        if program == "trio-dagnats":
            plain = [argument.strip("'").replace(ELSEWHERE, url) for argument in arguments]
            done = cli_process(*plain, url=url, cwd=directory)
            assert steady(done.stderr + done.stdout) == steady("\n".join(lines)), done
            assert done.returncode == Exit.DONE


def said_by(dev: Held, block: Block) -> None:
    """Wait until ``dev`` has printed the lines of a block, in any order."""
    for _, lines in commands(block):
        wanted = steady("\n".join(lines))
        dev.says("workflow.completed")
        assert set(wanted) <= set(steady(dev.err.read_text() + dev.out.read_text()))


def test_the_quick_start_prints_what_it_says(tmp_path: Path) -> None:
    make, dev_says, start, again, reads = [
        part for part in parts(QUICK_START) if part.language == "console" and not part.note
    ]
    play(make, tmp_path, "")
    demo = tmp_path / "demo"
    with held(demo, "dev", "--port", "0") as dev:
        dev.says("ready")
        play(start, demo, dev.url)
        worker = demo / "worker.py"
        worker.write_text(worker.read_text().replace(*GREETING))
        dev.says("reloaded (worker.py changed)")
        play(again, demo, dev.url)
        said_by(dev, dev_says)
        play(reads, demo, dev.url)
        assert dev.ends(signal.SIGINT) == Exit.DONE


@pytest.fixture(params=["local", pytest.param("dagnats", marks=pytest.mark.live)])
async def engine_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """An engine that was started apart, and does not know the quick start's workflow."""
    if request.param == "local":
        async with Server() as server, LocalEngine(server.url):
            yield server.url
        return
    url = request.getfixturevalue("live_url")
    async with open_broker(url) as broker:
        await broker.kv_delete(BUCKET_DEFS, "demo", deadline=trio.current_time() + 10)
    yield url


async def test_the_last_step_of_the_quick_start_is_true_of_an_engine_started_apart(
    engine_url: str, tmp_path: Path
) -> None:
    await trio.to_thread.run_sync(play_the_last_step, tmp_path, engine_url)


def play_the_last_step(directory: Path, url: str) -> None:
    """Do what the page says, in the state in which the steps before it leave the project."""
    blocks = {part.note: part for part in parts(QUICK_START) if part.note.startswith("engine: ")}
    cli_process("new", "demo", cwd=directory)
    demo = directory / "demo"
    (demo / "worker.py").write_text((demo / "worker.py").read_text().replace(*GREETING))
    play(blocks["engine: registers"], demo, url)
    ((_, *serve), _) = next(commands(blocks["engine: serves"]))
    with held(demo, *(argument.replace(ELSEWHERE, url) for argument in serve)) as worker:
        assert any(lists(worker, url) for _ in range(LOOKS))
        play(blocks["engine: starts"], demo, url)
        assert worker.ends(signal.SIGINT) == Exit.DONE


def lists(worker: Held, url: str) -> bool:
    """Say whether the engine knows the worker: before, a start could warn that nobody serves."""
    found = json.loads(cli_process("workers", "--json", url=url).stdout)
    return worker.process.pid in {entry["pid"] for entry in found}
