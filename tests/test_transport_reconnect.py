"""A connection that was lost comes back, whatever one try meets; else its worker ends and says why.

Each of these once left a worker that was alive and deaf, or ended one that could have gone on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nkeys
import pytest
import trio
from jwt_logins import Operator, Party
from log_lines import watching_the_log
from odd_bytes import Injector

from trio_dagnats import Client, ConnectOptions, TaskContext, Worker, Workflow
from trio_dagnats.errors import ConnectError, RunFailed, UsageError
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker, trio_asyncio
from trio_dagnats.transport.nats_py.private import SteadyClient
from trio_dagnats.transport.port import Broker, Message

SOON = 10.0
"""Seconds that only a failure takes."""


class Echo:
    """Listens on a subject of its own; ``missed`` is set once the connection was lost and back."""

    def __init__(self) -> None:
        self.missed = trio.Event()
        self.came = trio.Event()

    def __call__(self, message: Message | None) -> None:
        (self.missed if message is None else self.came).set()

    async def comes(self, broker: Broker) -> None:
        """Wait until a message comes back."""
        with trio.fail_after(SOON):
            await broker.publish("echo", b"")
            await self.came.wait()

    async def comes_again(self, broker: Broker) -> None:
        """Wait until the connection was lost and is back, and brings messages again."""
        with trio.fail_after(SOON):
            await self.missed.wait()
        await self.comes(broker)


@asynccontextmanager
async def injecting(port: int) -> AsyncIterator[Injector]:
    """Put odd bytes between a server and its clients, for the length of a block."""
    async with trio.open_nursery() as nursery:
        injector = Injector(port)
        await nursery.start(injector.run)
        yield injector
        nursery.cancel_scope.cancel()


async def restarted(server: Server) -> None:
    server.kill()
    await trio.to_thread.run_sync(server.restart)


def gone(path: Path, text: str) -> None:
    path.unlink()


def empty(path: Path, text: str) -> None:
    path.write_text("")


def cut_before_the_seed(path: Path, text: str) -> None:
    path.write_text(text[: text.index("SEED") - 20])


def half_a_seed(path: Path, text: str) -> None:
    path.write_text(text[: f"\n{text}".index("\nSU") + 30])


def seed_alone(path: Path, text: str) -> None:
    path.write_text(text[text.index("-----BEGIN USER") :])


Spoil = Callable[[Path, str], None]


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize(
    ("option", "spoil"),
    [
        *[("credentials", s) for s in (gone, empty, cut_before_the_seed, half_a_seed, seed_alone)],
        *[("nkey_seed", spoil) for spoil in (gone, empty, half_a_seed)],
    ],
)
async def test_a_key_file_that_is_good_again_logs_in_again(
    tmp_path: Path, option: str, spoil: Spoil
) -> None:
    path, config, echo = tmp_path / "key", tmp_path / "server.conf", Echo()
    operator, user = Operator(), Party(nkeys.PREFIX_BYTE_USER)
    if option == "credentials":
        text, login = operator.credentials(), operator.config
    else:
        text, login = user.seed.decode(), f"authorization {{ users: [{{nkey: {user.public}}}] }}"
    path.write_text(text)
    config.write_text(login)
    options = ConnectOptions(**{option: path})  # type: ignore[arg-type]  # both take a path
    async with (
        Server(config=config) as server,
        open_broker(server.url, options) as broker,
        broker.listen("echo", echo),
    ):
        spoil(path, text)
        with watching_the_log(f"{str(path)!r}") as log:
            await restarted(server)
            with trio.fail_after(SOON):
                await log.said.wait()
        path.write_text(text)
        await echo.comes_again(broker)


async def test_an_expired_login_reconnects_with_what_the_file_holds_now(tmp_path: Path) -> None:
    operator, echo = Operator(), Echo()
    path, config = tmp_path / "user.creds", tmp_path / "server.conf"
    config.write_text(operator.config)
    async with Server(config=config) as server:
        path.write_text(operator.credentials(until=time.time() + 5))
        options = ConnectOptions(credentials=path)
        async with open_broker(server.url, options) as broker, broker.listen("echo", echo):
            path.write_text(operator.credentials())
            await echo.comes_again(broker)


async def test_a_new_key_in_the_file_logs_in(tmp_path: Path) -> None:
    old, new, echo = Party(nkeys.PREFIX_BYTE_USER), Party(nkeys.PREFIX_BYTE_USER), Echo()
    path, config = tmp_path / "key", tmp_path / "server.conf"
    path.write_text(old.seed.decode())
    config.write_text(f"authorization {{ users: [{{nkey: {old.public}}}] }}")
    async with (
        Server(config=config) as server,
        open_broker(server.url, ConnectOptions(nkey_seed=path)) as broker,
        broker.listen("echo", echo),
    ):
        config.write_text(f"authorization {{ users: [{{nkey: {new.public}}}] }}")
        with watching_the_log("the login is refused") as log:
            await restarted(server)
            with trio.fail_after(SOON):
                await log.said.wait()
        path.write_text(new.seed.decode())
        await echo.comes_again(broker)


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("patience", [0.0, 1.0])
@pytest.mark.parametrize(
    "users", ["{user: ada, password: new}", "{user: bob, password: old}"], ids=["changed", "gone"]
)
async def test_a_login_that_stays_refused_ends_with_the_servers_reason(
    tmp_path: Path, users: str, patience: float
) -> None:
    config = tmp_path / "server.conf"
    config.write_text("authorization { users: [{user: ada, password: old}] }")
    options = ConnectOptions(user="ada", password="old", login_patience=patience)

    async def serve() -> None:
        async with Server(config=config) as server, open_broker(server.url, options):
            config.write_text(f"authorization {{ users: [{users}] }}")
            await restarted(server)
            await trio.sleep_forever()

    with (
        trio.fail_after(SOON + patience),
        pytest.raises(ConnectError, match=r"(?i)login_patience.*authorization violation"),
    ):
        await serve()


async def test_while_a_server_is_away_not_every_one_has_refused(tmp_path: Path) -> None:
    """Refused, then away for longer than the patience, then refused again: not the end yet."""
    config, echo = tmp_path / "server.conf", Echo()
    config.write_text("authorization { users: [{user: ada, password: old}] }")
    options = ConnectOptions(user="ada", password="old", login_patience=3.0)
    async with (
        Server(config=config) as server,
        open_broker(server.url, options) as broker,
        broker.listen("echo", echo),
    ):
        config.write_text("authorization { users: [{user: ada, password: new}] }")
        with watching_the_log("Authorization Violation") as log, trio.fail_after(SOON):
            await restarted(server)
            await log.said.wait()
        server.kill()
        with watching_the_log("ConnectionRefusedError", 13) as log, trio.fail_after(2 * SOON):
            await log.said.wait()  # a quarter of a second apart at least
        with watching_the_log("Authorization Violation") as log, trio.fail_after(SOON):
            await trio.to_thread.run_sync(server.restart)
            await log.said.wait()
        server.kill()
        config.write_text("authorization { users: [{user: ada, password: old}] }")
        await trio.to_thread.run_sync(server.restart)
        await echo.comes_again(broker)


@pytest.mark.parametrize("patience", [-1.0, float("inf"), float("nan")])
def test_a_patience_that_is_none_is_refused(patience: float) -> None:
    with pytest.raises(UsageError, match="login_patience"):
        ConnectOptions(login_patience=patience)


ERRORS = [
    b"-ERR 'Maximum Subscriptions Exceeded'\r\n",
    b"-ERR 'Invalid Publish Subject'\r\n",
    b"-ERR 'something of a later server'\r\n",
    b"-ERR 'User Authentication Expired'\r\n",
    b"-ERR 'Authorization Violation'\r\n",
]


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("error", ERRORS)
async def test_an_error_after_which_the_server_goes_on_ends_nothing(
    nats_server: Server, error: bytes
) -> None:
    echo = Echo()
    async with (
        injecting(nats_server.port) as injector,
        open_broker(injector.url) as broker,
        broker.listen("echo", echo),
    ):
        with watching_the_log(error.decode().split("'")[1].lower()) as log:
            await injector.inject(error)
            await echo.comes(broker)
        assert log.said.is_set()
        assert not echo.missed.is_set()


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("error", ERRORS)
async def test_an_error_after_which_the_server_closes_is_a_reconnect(
    nats_server: Server, error: bytes
) -> None:
    echo = Echo()
    async with (
        injecting(nats_server.port) as injector,
        open_broker(injector.url) as broker,
        broker.listen("echo", echo),
    ):
        await injector.inject(error)
        await injector.close()
        await echo.comes_again(broker)


@pytest.mark.usefixtures("either_path")
async def test_a_server_full_of_subscriptions_keeps_those_that_there_are(tmp_path: Path) -> None:
    config, echo = tmp_path / "server.conf", Echo()
    config.write_text("max_subscriptions: 3")
    async with (
        Server(config=config) as server,
        open_broker(server.url) as broker,
        broker.listen("echo", echo),
    ):
        with watching_the_log("maximum subscriptions exceeded") as log:
            async with broker.listen("a", Echo()), broker.listen("b", Echo()):
                await echo.comes(broker)
        assert log.said.is_set()
        assert not echo.missed.is_set()


@pytest.mark.usefixtures("either_path")
async def test_an_output_over_the_limit_of_the_account_fails_its_step_alone(tmp_path: Path) -> None:
    path, config = tmp_path / "user.creds", tmp_path / "server.conf"
    operator = Operator(payload=50_000)
    path.write_text(operator.credentials())
    config.write_text(operator.config)
    options = ConnectOptions(credentials=path)
    async with Server(config=config) as server, LocalEngine(server.url, options):
        worker = Worker(server.url, options=options)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> str:
            return "x" * int(ctx.input or b"0")

        async with worker, Client(server.url, options) as client:
            workflow = Workflow("w")
            workflow.step("s", "t")
            await client.register(workflow)
            large, small = await client.start("w", 100_000), await client.start("w", 3)
            with pytest.raises(RunFailed, match="that fit a run on this server"):
                await large.output(timeout=SOON)
            assert await small.output(timeout=SOON) == "xxx"


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_nats_pys_own_task_of_reconnecting_never_ends_unheard(
    nats_server: Server, error: type[BaseException]
) -> None:
    """What one try raises is a failed try; a cancellation that nobody wanted is the end, said."""
    back, closed, troubles = trio.Event(), trio.Event(), [error()]

    async def reconnected() -> None:
        if troubles:
            raise troubles.pop()
        back.set()

    async def ended() -> None:
        closed.set()

    async with (
        trio_asyncio.open_loop(),
        injecting(nats_server.port) as injector,
    ):
        client = SteadyClient(10.0)

        await trio_asyncio.aio_as_trio(client.connect)(
            injector.url,
            reconnected_cb=reconnected,
            closed_cb=ended,
            reconnect_time_wait=0.05,
            max_reconnect_attempts=-1,
        )
        await injector.close()
        with trio.fail_after(SOON):
            await (back if error is RuntimeError else closed).wait()
        await trio_asyncio.aio_as_trio(client.close)()
