"""Credentials, TLS and mistyped URLs against real servers that ask for them."""

import json
import logging
import os
import ssl
import traceback
from pathlib import Path
from urllib.parse import quote

import nkeys
import pytest
import trio
from odd_bytes import CERTIFICATE, KEY, Injector, trusting

from trio_dagnats import ConnectOptions, TaskContext, Worker
from trio_dagnats.errors import ConnectError, Missing, UsageError
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker

SECRET = "hunter2"
DEADLINE = 5.0


def new_seed() -> str:
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def public(seed: str) -> str:
    key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return key.decode()


def server(tmp_path: Path, text: str) -> Server:
    config = tmp_path / "server.conf"
    config.write_text(text)
    return Server(config=config)


async def connect(url: str | list[str], options: ConnectOptions | None = None) -> None:
    with trio.fail_after(DEADLINE):
        async with open_broker(url, options):
            pass


async def refusal(
    url: str, options: ConnectOptions | None, caplog: pytest.LogCaptureFixture
) -> str:
    """Return how a connection is refused; nothing anywhere may hold the secret."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConnectError) as error:
        await connect(url, options)
    shown = "".join(traceback.format_exception(error.value)) + caplog.text + repr(options)
    assert SECRET not in shown
    return str(error.value)


@pytest.mark.parametrize(
    ("config", "good", "bad"),
    [
        (
            'authorization { user: ada, password: "right" }',
            {"user": "ada", "password": "right"},
            {"user": "ada", "password": SECRET},
        ),
        ('authorization { token: "right" }', {"token": "right"}, {"token": SECRET}),
    ],
    ids=["password", "token"],
)
async def test_a_wrong_word_is_refused_at_once_and_named_by_host_only(
    tmp_path: Path,
    config: str,
    good: dict[str, str],
    bad: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with server(tmp_path, config) as found:
        await connect(found.url, ConnectOptions(**good))  # type: ignore[arg-type]  # all are str
        host = found.url.removeprefix("nats://")
        word = ":".join(bad.values())
        for url, options in (
            (found.url, ConnectOptions(**bad)),  # type: ignore[arg-type]  # the same
            (f"nats://{word}@{host}", None),
        ):
            told = await refusal(url, options, caplog)
            assert found.url in told
            assert "refused the credentials" in told


ODD = ["p@ss", "a/b", "a:b", "100%", "a b", "a#b?c", "\u00fc\u20ac", "%41"]


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("word", ODD)
@pytest.mark.parametrize("by", ["token", "password"])
async def test_special_characters_stand_in_a_url_as_percent_codes(
    tmp_path: Path, word: str, by: str
) -> None:
    user = {"token": word} if by == "token" else {"user": word, "password": word}
    login = ":".join(quote(part, safe="") for part in user.values())
    text = json.dumps({"authorization": user}, ensure_ascii=False)
    async with server(tmp_path, text) as found:
        await connect(found.url.replace("nats://", f"nats://{login}@"))


@pytest.mark.usefixtures("either_path")
async def test_the_login_of_a_url_is_that_of_servers_learnt_later_too(tmp_path: Path) -> None:
    back = trio.Event()
    async with (
        server(tmp_path, 'authorization { user: ada, password: "right" }') as found,
        trio.open_nursery() as nursery,
    ):
        injector = Injector(found.port)
        passing = await nursery.start(in_scope, injector)
        url = injector.url.replace("nats://", "nats://ada:right@")
        async with (
            open_broker(url, ConnectOptions(connect_timeout=4)) as broker,
            broker.listen("x", lambda message: back.set() if message is None else None),
        ):
            learnt = found.url.removeprefix("nats://").encode()
            await injector.inject(b'INFO {"connect_urls":["%b"]}\r\n' % learnt)
            await broker.request("$SYS.REQ.USER.INFO", b"", timeout=DEADLINE)  # it has been read
            passing.cancel()
            with trio.fail_after(2 * DEADLINE):
                await back.wait()


async def in_scope(
    injector: Injector, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    """Pass bytes on until the scope is cancelled that is told when it has begun."""
    async with trio.open_nursery() as nursery:
        await nursery.start(injector.run)
        task_status.started(nursery.cancel_scope)


@pytest.mark.parametrize("other", ["nats://bob:x@two:4222", "nats://t0ken@two:4222"])
async def test_urls_that_log_in_differently_are_refused(other: str) -> None:
    with pytest.raises(UsageError, match="log in differently") as error:
        await connect([f"nats://ada:{SECRET}@one:4222", other])
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("end", ["", "\n"])
async def test_an_nkey_logs_in_and_a_strange_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    seed = new_seed()
    good, bad = tmp_path / "good.nk", tmp_path / "bad.nk"
    good.write_text(seed + end)
    bad.write_text(new_seed() + end)
    config = f"authorization {{ users: [{{nkey: {public(seed)}}}] }}"
    async with server(tmp_path, config) as found:
        await connect(found.url, ConnectOptions(nkey_seed=good))
        told = await refusal(found.url, ConnectOptions(nkey_seed=bad), caplog)

    assert "refused the credentials" in told


async def test_strange_credentials_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    creds = tmp_path / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\nno.{SECRET}.jwt\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{new_seed()}\n------END USER NKEY SEED------\n"
    )
    async with server(tmp_path, 'authorization { token: "right" }') as found:
        told = await refusal(found.url, ConnectOptions(credentials=creds), caplog)

    assert "refused the credentials" in told


@pytest.mark.parametrize("option", ["nkey_seed", "credentials"])
@pytest.mark.parametrize("text", ["", SECRET, "S" * 58])
def test_a_file_without_a_key_is_refused_by_its_name(
    tmp_path: Path, option: str, text: str
) -> None:
    path = tmp_path / "key.file"
    path.write_text(text)

    with pytest.raises(UsageError, match=r"key\.file' does not hold") as error:
        ConnectOptions(**{option: path})  # type: ignore[arg-type]  # both take a path
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        f"nats://ada:{SECRET}/x@host:4222",
        f"nats://ada:{SECRET}#x@host:4222",
        f"nats://ada:{SECRET}@one:4222,nats://ada:{SECRET}@two:4222",
        f"nats://ada:{SECRET}@one,two",
        f"ws://ada:{SECRET}@host:80",
        f"nats://ada:1{SECRET}?x@host",
    ],
)
async def test_a_mistyped_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match="is no server URL") as error:
        await connect(url)
    assert SECRET not in "".join(traceback.format_exception(error.value))


def speaking_tls(tmp_path: Path) -> Server:
    return server(tmp_path, f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{KEY}" }}')


async def test_tls_connects_with_a_context_that_trusts_the_server(tmp_path: Path) -> None:
    context = trusting()
    async with speaking_tls(tmp_path) as found:
        await connect(found.url, ConnectOptions(tls=context))
        await connect(found.url.replace("nats:", "tls:"), ConnectOptions(tls=context))


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_tls_begins_before_the_server_speaks_if_that_is_asked_for(
    tmp_path: Path, scheme: str
) -> None:
    files = f'cert_file: "{CERTIFICATE}", key_file: "{KEY}"'
    options = ConnectOptions(tls=trusting(), tls_handshake_first=True)
    async with server(tmp_path, f"tls {{ {files}, handshake_first: true }}") as found:
        await connect(found.url.replace("nats", scheme), options)


@pytest.mark.usefixtures("either_path")
async def test_a_handshake_that_comes_first_needs_no_other_sign_of_tls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a context of its own a client trusts the usual authorities."""
    files = f'cert_file: "{CERTIFICATE}", key_file: "{KEY}"'
    options = ConnectOptions(tls_handshake_first=True, connect_timeout=1)
    async with server(tmp_path, f"tls {{ {files}, handshake_first: true }}") as found:
        assert "certificate verify failed" in await refusal(found.url, options, caplog)


async def test_a_server_that_cannot_be_verified_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ConnectOptions(tls=ssl.create_default_context(), connect_timeout=1)
    async with speaking_tls(tmp_path) as found:
        assert "certificate verify failed" in await refusal(found.url, options, caplog)


@pytest.mark.parametrize("by_url", [True, False])
async def test_where_tls_was_asked_for_no_password_goes_out_in_the_clear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, by_url: bool
) -> None:
    async with server(tmp_path, f'authorization {{ user: ada, password: "{SECRET}" }}') as found:
        host = found.url.removeprefix("nats://")
        context = None if by_url else ssl.create_default_context()
        options = ConnectOptions(user="ada", password=SECRET, tls=context)
        told = await refusal(f"tls://{host}" if by_url else found.url, options, caplog)

    assert "does not offer TLS" in told


@pytest.mark.usefixtures("either_path")
async def test_a_server_without_jetstream_says_what_to_run(tmp_path: Path) -> None:
    """The account of this connection has none, as on a server that was started without it."""
    accounts = "accounts { A: { users: [{user: a, password: a}] } }"
    async with server(tmp_path, f"{accounts}\nno_auth_user: a") as found:
        worker = Worker(found.url)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> None: ...

        for it in (worker, LocalEngine(found.url)):
            with trio.fail_after(DEADLINE), pytest.raises(Missing, match="nats-server -js"):
                async with it:
                    pass


async def test_a_configuration_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.conf"):
        Server(config="nowhere.conf")
