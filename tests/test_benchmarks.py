"""Short versions of the proof programs: counts and order, not times."""

import random
from pathlib import Path

import pytest

from benchmarks import (
    blocked,
    cancel,
    drain,
    durable_map,
    growth,
    idle,
    latency,
    layers,
    leaks,
    loops,
    memory,
    partitions,
    pauses,
    processes,
    ps,
    signals,
    startup,
)
from benchmarks.common import Report, Sample
from benchmarks.common.contest import RIGHT_ORDER, Load, by_turns, measure
from trio_dagnats import CancelReason
from trio_dagnats.local import Server


async def test_loops_whose_workers_are_killed_commit_each_iteration_once() -> None:
    async with Server() as server:
        report = await loops.play(server.url, 6, 6, random.Random(3))

    assert report.mistakes(6) == []
    assert sum(map(len, report.commits.values())) == 6 * 6
    assert report.kills > 0


async def test_a_streaming_call_is_interrupted_each_time_and_costs_no_consumer() -> None:
    async with Server() as server:
        took = await loops.interrupts(server.url, 20, random.Random(3))

    assert len(took) == 20


@pytest.mark.parametrize("kill_at", [[], [120], [1, 150]], ids=["undisturbed", "once", "twice"])
async def test_a_map_whose_worker_is_killed_runs_at_most_its_limit_again(
    kill_at: list[int],
) -> None:
    async with Server() as server:
        report = await durable_map.play(server.url, 200, 10, kill_at)

    assert report.mistakes(200, 10) == []
    assert report.kills == len(kill_at)


async def test_cancelled_runs_leave_no_task_no_outcome_and_no_message() -> None:
    async with Server() as server:
        found = await cancel.play(server.url, singly=30, flat_out=170, in_flight=20, seed=1)

    assert found.reasons == {CancelReason.RUN_CANCELLED: 200}
    assert (found.orphans, found.published, found.left) == (0, 0, 0)


async def test_sigterms_under_load_lose_nothing_repeat_nothing_and_spend_no_retry() -> None:
    async with Server() as server:
        found = await drain.play(server.url, sigterms=4, grace=0.2, seed=1, kinds=drain.KINDS)

    assert (found.lost, found.left, found.twice, found.spent) == (0, 0, 0, 0)
    assert found.exits == {0: 4}
    assert found.hand_backs()


async def test_no_task_has_two_executions_at_once_whatever_the_network_holds_back() -> None:
    found = await partitions.play(partitions=4, lanes=2, seed=2, most=3.2)

    assert (found.overlaps, found.lost, found.left, found.twice) == (0, 0, 0, 0)
    assert found.executions >= found.fed


@pytest.mark.parametrize("lease", [300.0, 2.0], ids=["default", "shorter than the block"])
async def test_a_handler_that_blocks_the_loop_is_named_once_and_completes_nothing_twice(
    lease: float,
) -> None:
    async with Server() as server:
        report = await blocked.play(server.url, 10, 5.0, lease)

    assert (report.stacks, report.names_the_line) == (1, True)
    assert bool(report.delivered_twice) == (lease < 5.0)
    assert (report.completed_twice, report.completed) == (0, 11)


async def test_a_busy_worker_tells_of_every_handler_and_names_the_guilty_line() -> None:
    async with Server() as server:
        took, _ = await ps.measure(server.url, 50, 3)

    assert len(took) == 3


async def test_each_signal_wakes_its_wait_once_also_around_a_restart_of_the_server() -> None:
    found = signals.Result()

    await signals.wait_and_wake(waits=150, burst=50, around=25, result=found)

    assert len(found.burst) == 50
    assert (found.missed, found.twice, found.consumers) == (0, 0, 0)


async def test_an_approval_survives_the_death_of_the_workers_that_got_it() -> None:
    found = signals.Result()

    await signals.approvals(count=8, kills=2, seed=1, result=found)

    assert (found.killed, found.lost) == (2, 0)
    assert found.again > 0


@pytest.mark.parametrize("kill", [False, True], ids=["undisturbed", "killed"])
async def test_pauses_hold_no_slot_and_end_once_each_and_not_before_their_time(
    *, kill: bool
) -> None:
    plan, found = pauses.Plan(pauses=120, seconds=3.0, ack_wait=2.0, quiet=0.5), pauses.Result()

    await pauses.play(plan, found, kill=kill)

    assert (found.early, found.lost, found.twice) == (0, 0, 0)
    assert kill or found.at_once == 120


async def test_workers_that_come_and_go_in_one_program_leave_nothing_behind() -> None:
    async with Server() as server:
        found = await leaks.play(server.url, cycles=8, seed=1)

    assert set(found.leaked.values()) == {0}, found.leaked
    assert (found.unfit, found.left, found.twice) == (0, 0, 0)
    assert found.completed == leaks.TASKS * len(leaks.TYPES)


async def test_two_processes_complete_each_task_of_a_queue_once(tmp_path: Path) -> None:
    rate = await processes.measure(2, 300, 0.0, tmp_path / "gate")

    assert rate > 0


@pytest.mark.parametrize(
    ("side", "work"),
    [
        ("ours", "noop"),
        ("ours", "typed"),
        ("ours-public", "sleep"),
        ("ours-pipelined", "noop"),
        ("asyncio", "typed"),
        ("uvloop", "sleep"),
        ("trio-asyncio", "typed"),
    ],
)
def test_every_side_starts_and_completes_each_task_once_and_in_this_order(
    side: str, work: str
) -> None:
    found = measure(side, Load(tasks=40, concurrency=8, work=work))

    assert found.orders == {RIGHT_ORDER: 40}
    assert len(found.spans_ms) == 40


def test_idle_workers_of_both_sides_complete_each_task_that_comes_along() -> None:
    found = latency.idle(5, 2, random.Random(1))

    assert {side: len(times) for side, times in found.items()} == {"ours": 5, "asyncio": 5}


def test_a_worker_at_half_of_its_rate_completes_each_task() -> None:
    assert len(latency.half_load("ours asyncio", 80).times) == 80 - latency.WARM


def test_idle_workers_stay_up() -> None:
    assert all(rest.mib > 0 for rest in idle.rest(0.1).values())


def test_processes_on_one_queue_complete_each_task_once() -> None:
    assert growth.together(Load(tasks=60, concurrency=8), "ours 2") > 0


def test_a_worker_of_many_task_types_completes_each_task_once() -> None:
    found = measure("ours", Load(tasks=40, concurrency=8, types=10, size=1000, runs=True))

    assert found.orders == {RIGHT_ORDER: 40}


@pytest.mark.parametrize("side", memory.SIDES)
def test_tasks_that_are_weighed_are_all_in_flight(side: str) -> None:
    assert memory.weigh_in_flight(200, side) > 0


@pytest.mark.parametrize("work", memory.WORKS)
def test_a_payload_is_there_once_at_least(work: str) -> None:
    assert memory.copies(work, "ours") >= 1


@pytest.mark.parametrize("side", startup.SIDES)
def test_a_new_process_completes_the_task_that_it_finds(side: str) -> None:
    assert startup.first_completion(side) > 0


@pytest.mark.parametrize("side", layers.SIDES)
def test_a_task_costs_every_side_three_messages_each_way_and_little_more(side: str) -> None:
    found = layers.watch("count", Load(tasks=100, concurrency=8), side)

    assert 300 < found["frames written"] < 500
    assert 300 < found["messages read"] < 500
    assert bool(found.get("trio steps")) == (side != "asyncio")


@pytest.mark.parametrize("side", layers.PROFILED)
def test_the_layers_of_a_profile_make_up_the_whole(side: str) -> None:
    found = layers.watch("profile", Load(tasks=100, concurrency=8), side)

    whole = sum(share for name, share in found.items() if layers.is_layer(name))
    assert round(whole) == 100
    assert found["socket"] > 0


def test_sides_take_turns_in_beginning() -> None:
    order = list[str]()

    by_turns(["a", "b"], 3, order.append)

    assert "".join(order) == "abbaab"


def test_a_ratio_is_taken_round_by_round() -> None:
    ratio = Sample((3.0, 8.0, 2.5)).over(Sample((1.0, 2.0, 1.0)))

    assert str(ratio) == "3 (2.50-4)"


def test_a_bar_says_whether_it_is_met_and_what_was_measured() -> None:
    report = Report()

    report.least("ratio", 1.53, 2.5)
    report.most("memory", 44.0, 60.0, "MiB")

    assert list(map(str, report.figures)) == [
        "bar ratio >= 2.5: MISSED, measured 1.53",
        "bar memory <= 60: met, measured 44 MiB",
    ]
    assert len(report.missed) == 1
