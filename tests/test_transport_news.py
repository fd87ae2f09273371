"""Listening in order to look again."""

import trio
from trio.testing import MockClock

from trio_dagnats.transport.news import News
from trio_dagnats.transport.port import Message

SECONDS = 5.0


async def test_what_is_heard_during_a_look_needs_no_wait(autojump_clock: MockClock) -> None:
    news = News()

    news.forget()
    news.hear(Message(subject="a", body=b"1"))

    assert await news.wait(SECONDS)
    assert trio.current_time() < SECONDS


async def test_without_news_the_wait_ends_by_itself(autojump_clock: MockClock) -> None:
    news = News()
    news.hear(None)

    news.forget()

    begun = trio.current_time()
    assert not await news.wait(SECONDS)
    assert trio.current_time() - begun >= SECONDS


async def test_a_message_that_nobody_wants_is_no_news_and_a_gap_always_is() -> None:
    news = News(lambda message: message.body == b"end")

    news.hear(Message(subject="a", body=b"1"))
    assert not news.heard

    news.hear(None)
    assert news.heard
