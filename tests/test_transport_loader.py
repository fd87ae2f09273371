"""Loading trio-asyncio on every Python that we name: in whatever program, and leaving no trace."""

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from trio_dagnats.local import Server

ROOT = Path(__file__).parent.parent

TALK = """
import asyncio, sys, trio
from trio_dagnats.transport import open_broker

async def talk():
    async with open_broker(sys.argv[1]) as one, open_broker(sys.argv[1]) as two:
        assert type(one) is type(two)
    print("talked", end=" ")
"""
AROUND = {
    "nothing": "trio.run(talk)",
    "a task of asyncio": """
        async def host():
            me, loop = asyncio.current_task(), asyncio.get_running_loop()
            trio.run(talk)
            assert asyncio.current_task() is me
            assert asyncio.get_running_loop() is loop
            await asyncio.gather(asyncio.sleep(0.001), asyncio.sleep(0.001))

        asyncio.run(host())
        """,
    "a thread of asyncio": "asyncio.run(asyncio.to_thread(trio.run, talk))",
    "asyncio with trio as its guest": """
        async def host():
            me, loop = asyncio.current_task(), asyncio.get_running_loop()
            over = loop.create_future()
            trio.lowlevel.start_guest_run(
                talk,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=over.set_result,
            )
            while not over.done():
                await asyncio.sleep(0.001)
                assert asyncio.current_task() is me
                assert asyncio.get_running_loop() is loop
            over.result().unwrap()

        asyncio.run(host())
        """,
    "another loop of trio-asyncio": """
        from trio_dagnats.transport import trio_asyncio

        async def look(loop):
            await asyncio.wait_for(asyncio.sleep(0.001), 5)
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() in asyncio.all_tasks()

        async def host():
            async with trio_asyncio.open_loop() as loop, trio.open_nursery() as nursery:
                await trio_asyncio.aio_as_trio(look)(loop)
                nursery.start_soon(talk)
                nursery.start_soon(trio_asyncio.aio_as_trio(look), loop)
                await talk()
                await trio_asyncio.aio_as_trio(look)(loop)

        trio.run(host)
        """,
    "an asyncio.run after it": """
        trio.run(talk)

        async def later():
            await asyncio.gather(asyncio.sleep(0.001), asyncio.sleep(0.001))

        asyncio.run(later())
        """,
}


def run(code: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a program on its own, with warnings as errors, and return its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("around", AROUND)
def test_a_connection_works_in_whatever_program(around: str, nats_server: Server) -> None:
    done = run(TALK + textwrap.dedent(AROUND[around]), nats_server.url)

    assert done.stderr == ""
    assert set(done.stdout.split()) == {"talked"}


def test_asyncio_has_no_more_names_than_before() -> None:
    done = run("""
import asyncio, asyncio.events
before = {*vars(asyncio), *vars(asyncio.events)}
from trio_dagnats.transport import trio_asyncio
assert trio_asyncio is __import__("trio_asyncio")
print({*vars(asyncio), *vars(asyncio.events)} - before)
""")

    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_a_trio_asyncio_that_imports_by_itself_is_left_alone() -> None:
    done = run("""
import asyncio, sys, types
run = asyncio.Handle._run
mine = sys.modules["trio_asyncio"] = types.ModuleType("trio_asyncio")
from trio_dagnats.transport import trio_asyncio
print(trio_asyncio is mine, asyncio.Handle._run is run)
""")

    assert (done.stdout, done.stderr) == ("True True\n", "")


@pytest.mark.parametrize("gone", ["events._BaseDefaultEventLoopPolicy", "tasks._swap_current_task"])
def test_a_python_of_another_kind_is_refused_by_name_every_time(gone: str) -> None:
    module, name = gone.split(".")
    done = run(f"""
import asyncio
run = asyncio.Handle._run
vars(asyncio.events).pop("BaseDefaultEventLoopPolicy", None)
vars(asyncio.tasks).setdefault("_swap_current_task", None)
vars(asyncio.{module}).pop("{name}", None)
for _ in range(2):
    try:
        from trio_dagnats.transport import trio_asyncio
    except ImportError as error:
        print(error)
assert asyncio.Handle._run is run
""")

    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == second
    assert f"'{name}'" in first
    assert "use Python 3.11 to 3.14" in first


def test_every_place_names_the_same_pythons() -> None:
    def text(place: str) -> str:
        return (ROOT / place).read_text()

    project = tomllib.loads(text("pyproject.toml"))["project"]
    named = [c.split()[-1] for c in project["classifiers"] if "Python :: 3." in c]
    first, last = named[0], named[-1]
    bounds = f">={first},<3.{int(last[2:]) + 1}"

    assert "{}.{}".format(*sys.version_info) in named
    assert project["requires-python"] == bounds
    assert f'requires-python = "{bounds}"' in text("trio_dagnats/cli/template/pyproject.toml.tmpl")
    assert f"python={named}".replace("'", '"') in text("noxfile.py")
    for page in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/quick-start.md",
        "trio_dagnats/transport/nats_py/loader.py",
    ):
        assert f"Python {first} to {last}" in text(page)
