"""What the server refuses for now is asked for again; what it refuses for good is not."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from contract_bench import PATIENCE

from trio_dagnats.errors import Conflict, NotStored
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker, Message, StreamSpec


def refusal(code: int) -> bytes:
    error = {"code": 400, "err_code": code, "description": f"refusal {code}"}
    return json.dumps({"error": error}).encode()


STORED = b'{"stream":"S","seq":7}'


@asynccontextmanager
async def answering(broker: Broker, *answers: bytes) -> AsyncIterator[None]:
    """Answer publishes to ``s.a`` as a stream of a cluster would, the last one for ever."""
    left = list(answers)

    async with trio.open_nursery() as nursery:

        def answer(message: Message | None) -> None:
            assert message is not None
            said = left.pop(0) if len(left) > 1 else left[0]
            nursery.start_soon(broker.publish, message.reply, said)

        async with broker.listen("s.a", answer):
            yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("code", [10002, 10008, 10023, 10028, 10047, 10077, 10158, 10163, 10167])
async def test_a_refusal_that_passes_is_no_answer(own: Broker, code: int) -> None:
    async with answering(own, refusal(code), STORED):
        stored = await own.store("s.a", b"", deadline=trio.current_time() + PATIENCE)
    assert stored.sequence == 7

    async with answering(own, refusal(code)):
        with pytest.raises(NotStored, match=f"refusal {code}"):
            await own.store("s.a", b"", deadline=trio.current_time() + 0.1)


@pytest.mark.parametrize("code", [10071, 10164])
async def test_a_wrong_last_sequence_is_a_conflict_however_it_is_said(
    own: Broker, code: int
) -> None:
    async with answering(own, refusal(code)):
        with pytest.raises(Conflict):
            await own.store("s.a", b"", expect_last=3, deadline=trio.current_time() + PATIENCE)


async def test_a_full_account_takes_what_waits_when_there_is_room_again(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text(
        "accounts { A: { jetstream: { max_file: 100K, max_mem: 100K }, users: "
        "[{user: a, password: a}] } }\nno_auth_user: a\n"
    )
    async with Server(config=config) as server, open_broker(server.url) as broker:
        soon = trio.current_time() + PATIENCE
        await broker.ensure_stream(StreamSpec(name="S", subjects=("s.>",)), deadline=soon)
        await broker.store("s.a", b"x" * 60_000, deadline=soon)
        with pytest.raises(NotStored, match="resource limits exceeded"):
            await broker.store("s.a", b"x" * 60_000, deadline=trio.current_time() + 0.3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: broker.store("s.a", b"x" * 60_000, deadline=soon))
            await broker.request("$JS.API.STREAM.PURGE.S", b"", timeout=PATIENCE)
