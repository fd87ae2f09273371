"""The local engine's speed, and how it grows; beside a DagNats engine where one is at hand.

One engine, one worker and one client, each in a process of its own: a three-step chain, one-step
runs with few and with many runs stored, a map, a fan-out. Every run is checked to have completed.

Run it:  python -m benchmarks.engine  [--live nats://host:4222]  [--stored 10000]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import trio

from trio_dagnats import Client, Run, TaskContext, Worker, Workflow
from trio_dagnats.client import RunStatus
from trio_dagnats.local import LocalEngine, Server

CHAINS = 50
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
    """Measure everything on one server."""
    async with Client(url) as client:
        for workflow in workflows():
            await client.register(workflow)
        await burst(client, 100)
        found = {"rate_few": statistics.median([await burst(client, BURST) for _ in range(3)])}
        chains = [await timed(client, "bench-chain", 1) for _ in range(CHAINS)]
        found["chain_ms"] = statistics.median(chains) * 1000
        for items in (ITEMS // 4, ITEMS):
            found[f"map_{items}"] = await timed(client, "bench-map", list(range(items)))
        found["fan"] = await timed(client, "bench-fan", 1)
        have = 100 + 3 * BURST + CHAINS + 3
        await burst(client, max(0, stored - have))
        found["rate_many"] = statistics.median([await burst(client, BURST) for _ in range(3)])
    return found


def process(role: str, url: str) -> "subprocess.Popen[str]":
    """Start one of our own roles; return when it is ready."""
    command = [sys.executable, __file__, "--role", role, "--url", url]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n", f"{role} did not start"
    return child


def one_side(url: str, roles: list[str], stored: int) -> dict[str, float]:
    """Measure one engine, with our worker."""
    children = [process(role, url) for role in roles]
    try:
        return trio.run(measure, url, stored)
    finally:
        for child in reversed(children):
            child.kill()
            child.wait()


def table(sides: dict[str, dict[str, float]], stored: int) -> None:
    """Print the figures side by side."""
    rows = {
        "three-step chain, p50, ms": "chain_ms",
        "one-step runs/s, few stored": "rate_few",
        f"one-step runs/s, {stored} stored": "rate_many",
        f"map of {ITEMS // 4} items, s": f"map_{ITEMS // 4}",
        f"map of {ITEMS} items, s": f"map_{ITEMS}",
        f"fan-out of {STEPS} steps, s": "fan",
    }
    print(f"{'':32}" + "".join(f"{side:>14}" for side in sides))
    for label, key in rows.items():
        print(f"{label:32}" + "".join(f"{found[key]:14.2f}" for found in sides.values()))


def misses(found: dict[str, float]) -> list[str]:
    """Name the bars that the local engine does not reach."""
    reached = {
        "chain_ms": found["chain_ms"] < BARS["chain_ms"],
        "rate": min(found["rate_few"], found["rate_many"]) > BARS["rate"],
        "kept": found["rate_many"] >= BARS["kept"] * found["rate_few"],
        "map_s": found[f"map_{ITEMS}"] < BARS["map_s"],
        "fan_s": found["fan"] < BARS["fan_s"],
    }
    return [f"{name} ({BARS[name]:g})" for name, good in reached.items() if not good]


def main() -> None:
    """Measure the local engine, and a DagNats one if there is a URL; fail below the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", help="the NATS URL of a running DagNats engine")
    parser.add_argument("--stored", type=int, default=10_000)
    parser.add_argument("--live-stored", type=int, default=1500, help="fewer: it gets slow (H38)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=["engine", "worker"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.role:
        trio.run(serve_engine if found.role == "engine" else serve_worker, found.url)
        return
    sides = {}
    with Server() as server:
        sides["local engine"] = one_side(server.url, ["engine", "worker"], found.stored)
    if found.live:
        sides["DagNats"] = one_side(found.live, ["worker"], found.live_stored)
        print(f"DagNats: {found.live_stored} runs where it says {found.stored} stored")
    print(json.dumps(sides)) if found.json else table(sides, found.stored)
    missed = misses(sides["local engine"])
    print(f"missed bars: {', '.join(missed) or 'none'}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
