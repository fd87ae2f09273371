"""Key-value buckets, on every broker."""

from functools import partial

import pytest
import trio
from contract_bench import Bench

from trio_dagnats.errors import Conflict, Missing, TooLarge


async def test_an_absent_key_is_none(bench: Bench) -> None:
    assert await bench.broker.kv_get(bench.bucket, "a.b", deadline=bench.soon) is None


async def test_a_written_key_is_read(bench: Bench) -> None:
    revision = await bench.broker.kv_put(bench.bucket, "a.b=c", b"v", deadline=bench.soon)

    entry = await bench.broker.kv_get(bench.bucket, "a.b=c", deadline=bench.soon)

    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == ("a.b=c", b"v", revision)


async def test_the_last_write_wins(bench: Bench) -> None:
    await bench.broker.kv_put(bench.bucket, "a", b"1", deadline=bench.soon)
    await bench.broker.kv_put(bench.bucket, "a", b"2", deadline=bench.soon)

    entry = await bench.broker.kv_get(bench.bucket, "a", deadline=bench.soon)

    assert entry is not None
    assert entry.value == b"2"


async def test_an_empty_value_is_a_value(bench: Bench) -> None:
    await bench.broker.kv_put(bench.bucket, "a", b"", deadline=bench.soon)

    entry = await bench.broker.kv_get(bench.bucket, "a", deadline=bench.soon)

    assert entry is not None
    assert entry.value == b""


async def test_an_expected_revision_guards_a_write(bench: Bench) -> None:
    first = await bench.broker.kv_put(bench.bucket, "a", b"1", expect=0, deadline=bench.soon)
    await bench.broker.kv_put(bench.bucket, "a", b"2", expect=first, deadline=bench.soon)

    with pytest.raises(Conflict):
        await bench.broker.kv_put(bench.bucket, "a", b"3", expect=first, deadline=bench.soon)


async def test_a_deleted_key_is_none(bench: Bench) -> None:
    await bench.broker.kv_put(bench.bucket, "a", b"1", deadline=bench.soon)
    await bench.broker.kv_delete(bench.bucket, "a", deadline=bench.soon)

    assert await bench.broker.kv_get(bench.bucket, "a", deadline=bench.soon) is None
    assert await bench.broker.kv_entries(bench.bucket, deadline=bench.soon) == []


async def test_deleting_an_absent_key_is_no_error(bench: Bench) -> None:
    await bench.broker.kv_delete(bench.bucket, "a", deadline=bench.soon)


@pytest.mark.parametrize("prefix", ["run.", "run.a", ""])
async def test_entries_come_by_prefix_in_key_order(bench: Bench, prefix: str) -> None:
    for key in ("run.b", "other", "run.a", "run.ab"):
        await bench.broker.kv_put(bench.bucket, key, b"v", deadline=bench.soon)

    found = await bench.broker.kv_entries(bench.bucket, prefix, deadline=bench.soon)

    expected = [k for k in ("other", "run.a", "run.ab", "run.b") if k.startswith(prefix)]
    assert [entry.key for entry in found] == expected


async def test_clearing_takes_out_what_is_below_a_prefix_and_nothing_else(bench: Bench) -> None:
    for key in ("run.s=map.0.1", "run.s=map.0.2", "run.s=map.10", "run.s"):
        await bench.broker.kv_put(bench.bucket, key, b"v", deadline=bench.soon)

    await bench.broker.kv_clear(bench.bucket, "run.s=map.0.", deadline=bench.soon)

    found = await bench.broker.kv_entries(bench.bucket, deadline=bench.soon)
    assert [entry.key for entry in found] == ["run.s", "run.s=map.10"]


async def test_a_missing_bucket_is_named(bench: Bench) -> None:
    name = f"none{bench.token}"

    with pytest.raises(Missing, match=name):
        await bench.broker.kv_get(name, "a", deadline=bench.soon)
    with pytest.raises(Missing, match=name):
        await bench.broker.kv_put(name, "a", b"", deadline=bench.soon)
    with pytest.raises(Missing, match=name):
        await bench.broker.kv_entries(name, deadline=bench.soon)
    with pytest.raises(Missing, match=name):
        await bench.broker.kv_delete(name, "a", deadline=bench.soon)
    with pytest.raises(Missing, match=name):
        await bench.broker.kv_clear(name, "a.", deadline=bench.soon)


async def test_a_value_that_is_too_large_is_refused(bench: Bench) -> None:
    with pytest.raises(TooLarge):
        await bench.broker.kv_put(
            bench.bucket, "a", bytes(bench.broker.max_payload + 1), deadline=bench.soon
        )


async def test_making_a_bucket_twice_keeps_its_keys(bench: Bench) -> None:
    await bench.broker.kv_put(bench.bucket, "a", b"1", deadline=bench.soon)

    await bench.broker.ensure_bucket(bench.bucket, deadline=bench.soon)

    assert await bench.broker.kv_get(bench.bucket, "a", deadline=bench.soon) is not None


async def test_several_keys_are_read_at_once_without_the_absent_ones(bench: Bench) -> None:
    await bench.broker.kv_put(bench.bucket, "a", b"1", deadline=bench.soon)
    await bench.broker.kv_put(bench.bucket, "b.c", b"2", deadline=bench.soon)
    await bench.broker.kv_put(bench.bucket, "gone", b"3", deadline=bench.soon)
    await bench.broker.kv_delete(bench.bucket, "gone", deadline=bench.soon)

    keys = ["b.c", "never", "gone", "a"]
    found = await bench.broker.kv_get_many(bench.bucket, keys, deadline=bench.soon)

    assert {key: entry.value for key, entry in found.items()} == {"a": b"1", "b.c": b"2"}


@pytest.mark.parametrize("keys", [[], ["never"]])
async def test_several_keys_may_all_be_absent(keys: list[str], bench: Bench) -> None:
    assert await bench.broker.kv_get_many(bench.bucket, keys, deadline=bench.soon) == {}


async def test_several_keys_of_an_absent_bucket_are_an_error(bench: Bench) -> None:
    with pytest.raises(Missing, match="no-such-bucket"):
        await bench.broker.kv_get_many("no-such-bucket", ["a", "b"], deadline=bench.soon)


async def test_a_thousand_keys_are_read_at_once(bench: Bench) -> None:
    keys = [f"k{number}" for number in range(1000)]
    async with trio.open_nursery() as nursery:
        for key in keys:
            put = partial(bench.broker.kv_put, deadline=bench.soon)
            nursery.start_soon(put, bench.bucket, key, key.encode())

    found = await bench.broker.kv_get_many(bench.bucket, keys, deadline=bench.soon)

    assert {key: entry.value.decode() for key, entry in found.items()} == dict(
        zip(keys, keys, strict=True)
    )
