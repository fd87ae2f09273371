"""The local engine's speed, and how it grows; beside the engine at a URL where there is one.

One engine, one worker and one client, each in a process of its own: a three-step chain, one-step
runs with few and with many runs stored, a map, a fan-out. Every run is checked to have completed.

Run it:  python -m benchmarks.engine  [--live nats://host:4222]  [--stored 10000]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio

from trio_dagnats import Client, Run, TaskContext, Worker, Workflow
from trio_dagnats.client import RunStatus
from trio_dagnats.local import LocalEngine, Server

LIVE = "TRIO_DAGNATS_LIVE_URL"
CHAINS = 50
FEW = 100
BURST = 300
AT_ONCE = 64
ITEMS = 400
STEPS = 200
BARS = {"chain_ms": 15.0, "rate": 200.0, "kept": 0.9, "map_s": 1.5, "fan_s": 1.5}
"""A chain's milliseconds, runs per second, how much of that is left with many stored, seconds."""


def workflows() -> list[Workflow]:
    """Return what is measured."""
    chain, one = Workflow("bench-chain"), Workflow("bench-one")
    chain.step("c", "echo", after=chain.step("b", "echo", after=chain.step("a", "echo")))
    one.step("a", "echo")
    wide, fan = Workflow("bench-map"), Workflow("bench-fan")
    wide.map("each", "echo", over=wide.step("list", "echo"), max_items=10_000)
    first = fan.step("first", "echo")
    many = [fan.step(f"s{number}", "nothing", after=first) for number in range(STEPS)]
    fan.step("last", "nothing", after=many)
    return [chain, one, wide, fan]


async def serve_engine(url: str) -> None:
    """Run the local engine until killed."""
    async with LocalEngine(url):
        print("ready", flush=True)
        await trio.sleep_forever()


async def serve_worker(url: str) -> None:
    """Run the worker until killed."""
    worker = Worker(url)

    @worker.handle("echo")
    async def echo(ctx: TaskContext) -> bytes:
        return ctx.input

    @worker.handle("nothing")
    async def nothing(ctx: TaskContext) -> None:
        pass

    async with worker:
        print("ready", flush=True)
        await trio.sleep_forever()


async def timed(client: Client, name: str, given: object = None) -> float:
    """Run a workflow; return its seconds from the request to the end."""
    begun = time.perf_counter()
    run = await client.start(name, given)
    await ended(run)
    return time.perf_counter() - begun


async def ended(run: Run) -> None:
    """Wait for a run's end; fail unless it has completed."""
    found = await run.wait(timeout=300)
    assert found.status is RunStatus.COMPLETED, found


async def burst(client: Client, count: int) -> float:
    """Run so many one-step runs, some at once; return how many a second."""
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one() -> None:
        async with limit:
            await timed(client, "bench-one", 1)

    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return count / (time.perf_counter() - begun)


async def measure(url: str, stored: int) -> dict[str, float]:
    """Measure everything but the growth, then store so many runs."""
    async with Client(url) as client:
        await prepare(client)
        found = {"rate_few": await burst(client, BURST)}
        chains = [await timed(client, "bench-chain", 1) for _ in range(CHAINS)]
        found["chain_ms"] = statistics.median(chains) * 1000
        for items in (ITEMS // 4, ITEMS):
            found[f"map_{items}"] = await timed(client, "bench-map", list(range(items)))
        found["fan"] = await timed(client, "bench-fan", 1)
        await burst(client, max(0, stored - FEW - BURST - CHAINS - 3))
        found["rate_many"] = await burst(client, BURST)
    return found


async def prepare(client: Client) -> None:
    """Register the workflows, and end the first few runs."""
    for workflow in workflows():
        await client.register(workflow)
    await burst(client, FEW)


async def compare(full: str, rounds: int) -> dict[str, float]:
    """Measure a server with many runs, in turns with servers that have few, each of them new.

    The same server differs by a fifth from minute to minute, on a machine that others share.
    """
    few: list[float] = []
    many: list[float] = []
    for number in range(rounds):
        with served() as fresh:
            async with Client(full) as on_full, Client(fresh) as on_fresh:
                await prepare(on_fresh)
                turns = [(on_fresh, few), (on_full, many)]
                for client, rates in reversed(turns) if number % 2 else turns:
                    rates.append(await burst(client, BURST))
    pairs = list(zip(few, many, strict=True))
    print(f"runs/s, few:many, {' '.join(f'{a:.0f}:{b:.0f}' for a, b in pairs)}", file=sys.stderr)
    return {
        "rate_few": statistics.median(few),
        "rate_many": statistics.median(many),
        "kept": statistics.median(b / a for a, b in pairs),
    }


@contextmanager
def served(url: str | None = None) -> Iterator[str]:
    """Run our worker for an engine; without a URL, also a server with the local engine."""
    with ExitStack() as stack:
        roles = ["worker"] if url else ["engine", "worker"]
        at = url or stack.enter_context(Server()).url
        for role in roles:
            stack.enter_context(process(role, at))
        yield at


@contextmanager
def process(role: str, url: str) -> Iterator[None]:
    """Run one of our own roles, ready when the block begins."""
    command = [sys.executable, __file__, "--role", role, "--url", url]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", f"{role} did not start"
        yield
    finally:
        child.kill()
        child.wait()


def local_engine(stored: int, rounds: int) -> dict[str, float]:
    """Measure the local engine."""
    with served() as url:
        found = trio.run(measure, url, stored)
        return found | trio.run(compare, url, rounds)


def live_engine(url: str, stored: int) -> dict[str, float]:
    """Measure the engine at a URL; few and many runs one after the other, for it has one server."""
    with served(url):
        found = trio.run(measure, url, stored)
    return found | {"kept": found["rate_many"] / found["rate_few"]}


def table(sides: dict[str, dict[str, float]], stored: int, live_stored: int) -> str:
    """Write the figures side by side."""
    rows = {
        "three-step chain, p50, ms": "chain_ms",
        f"one-step runs/s, {FEW} stored": "rate_few",
        f"one-step runs/s, {stored} stored (engine at URL: {live_stored})": "rate_many",
        "kept of them with many stored": "kept",
        f"map of {ITEMS // 4} items, s": f"map_{ITEMS // 4}",
        f"map of {ITEMS} items, s": f"map_{ITEMS}",
        f"fan-out of {STEPS} steps, s": "fan",
    }
    lines = [f"{'':54}" + "".join(f"{side:>14}" for side in sides)]
    for label, key in rows.items():
        lines.append(f"{label:54}" + "".join(f"{found[key]:14.2f}" for found in sides.values()))
    return "\n".join(lines)


def misses(found: dict[str, float]) -> list[str]:
    """Name the bars that the local engine does not reach."""
    reached = {
        "chain_ms": found["chain_ms"] < BARS["chain_ms"],
        "rate": min(found["rate_few"], found["rate_many"]) > BARS["rate"],
        "kept": found["kept"] >= BARS["kept"],
        "map_s": found[f"map_{ITEMS}"] < BARS["map_s"],
        "fan_s": found["fan"] < BARS["fan_s"],
    }
    return [f"{name} ({BARS[name]:g})" for name, good in reached.items() if not good]


def main() -> None:
    """Measure the local engine, and the engine at a URL if there is one; fail below the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", default=os.environ.get(LIVE), help=f"NATS URL; else {LIVE}")
    parser.add_argument("--stored", type=int, default=10_000)
    parser.add_argument("--live-stored", type=int, default=1500, help="fewer: it gets slow (H38)")
    parser.add_argument("--rounds", type=int, default=9, help="of few and many stored, in turns")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=["engine", "worker"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.role:
        trio.run(serve_engine if found.role == "engine" else serve_worker, found.url)
        return
    sides = {"local engine": local_engine(found.stored, found.rounds)}
    if found.live:
        sides["engine at URL"] = live_engine(found.live, found.live_stored)
    print(json.dumps(sides) if found.json else table(sides, found.stored, found.live_stored))
    missed = misses(sides["local engine"])
    print(f"missed bars: {', '.join(missed) or 'none'}", file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
