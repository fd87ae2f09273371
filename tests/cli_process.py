"""The command line in processes of its own, for tests: run to its end, or hold while it serves."""

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from trio_dagnats.cli.main import main

PATIENCE = 20.0
POLL = 0.02
COMMAND = [sys.executable, "-m", "trio_dagnats.cli.main"]

WORKER = """
import trio
from trio_dagnats import Retry, TaskContext, Worker, Workflow

worker = Worker("nats://nobody:1")
FLOWS = ("echo", "boom", "chatty", "waits", "long", "nobody")


@worker.handle("echo")
async def echo(ctx: TaskContext) -> bytes:
    return ctx.input


@worker.handle("boom")
async def boom(ctx: TaskContext) -> None:
    raise ValueError("no luck")


@worker.handle("chatty")
async def chatty(ctx: TaskContext) -> str:
    await ctx.wait_for_signal("go")
    await ctx.put_stream("a chunk")
    return "said"


@worker.handle("waits")
async def waits(ctx: TaskContext) -> bytes:
    return await ctx.wait_for_signal("go")


@worker.handle("long")
async def long(ctx: TaskContext) -> None:
    await trio.sleep(3600)


for flow in FLOWS:
    globals()[f"{flow}_workflow"] = workflow = Workflow(flow)
    workflow.step(flow, retry=Retry(1, delay=0.01))
"""


def environment(url: str) -> dict[str, str]:
    """Return an environment whose only server is this one."""
    kept = {k: v for k, v in os.environ.items() if k not in {"DAGNATS_NATS_URL", "NATS_URL"}}
    return {**kept, "NATS_URL": url} if url else kept


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def cli(*arguments: str, url: str = "") -> Done:
    """Run a command to its end, in this process: starting one costs more than the command."""
    out, err = io.StringIO(), io.StringIO()
    given = ["--nats", url] if url and "--nats" not in arguments else []
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*arguments, *given])
    return Done(code, out.getvalue(), err.getvalue())


def cli_process(
    *arguments: str, url: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(url),
        cwd=cwd,
        check=False,
    )


@dataclass
class Held:
    """A command that goes on; what it says is in files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def url(self) -> str:
        """The server that ``dev`` said it uses."""
        return self.err.read_text().split(" on ", 1)[1].split(";", 1)[0]

    def says(self, text: str, count: int = 1) -> str:
        """Wait until it has said something so often; return all that it said."""
        deadline, said = time.monotonic() + PATIENCE, ""
        while time.monotonic() < deadline:
            said = self.err.read_text() + self.out.read_text()
            if said.count(text) >= count:
                return said
            assert self.process.poll() is None, f"ended, before it said {text!r}: {said}"
            time.sleep(POLL)
        raise AssertionError(f"it never said {text!r} {count} times, but: {said}")

    def ends(self, signal_number: int) -> int:
        """Send it a signal; return its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(PATIENCE)


@contextmanager
def held(directory: Path, *arguments: str, url: str = "") -> Iterator[Held]:
    """Run a command for the length of a block; afterwards it is gone."""
    files = [directory / f"{arguments[0]}-{time.monotonic_ns()}.{kind}" for kind in ("out", "err")]
    with files[0].open("wb") as out, files[1].open("wb") as err:
        # A killed `dev` cannot delete its server's files; here they are in the test's directory.
        env = {**environment(url), "TMPDIR": str(directory)}
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=out, stderr=err, env=env, cwd=directory
        )
    try:
        yield Held(process, *files)
    finally:
        process.kill()
        process.wait()


def gone(pid: int) -> bool:
    """Wait until a process that is not ours has ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(POLL)
    return False


def refuses(url: str) -> bool:
    """Wait until nothing listens at a server's URL any more."""
    host, _, port = url.removeprefix("nats://").rpartition(":")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), 1.0).close()
        except ConnectionRefusedError:
            return True
        time.sleep(POLL)
    return False
