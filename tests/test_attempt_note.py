from dataclasses import replace

import pytest

from trio_dagnats.attempt.note import Note, Pause, decode, encode

FULL = Note(
    dispatch=7,
    let_go=2,
    retries=1,
    forgiven=4,
    chances=1,
    pause=Pause(number=3, until_ns=99),
    signals={"go": 5},
)


@pytest.mark.parametrize("note", [FULL, Note(dispatch=1), Note(dispatch=2, let_go=1)])
def test_a_note_is_read_as_it_was_written(note: Note) -> None:
    """Writing and reading a note changes nothing."""
    assert decode(encode(note)) == note


@pytest.mark.parametrize(
    "raw", [None, b"", b"{", b"[]", b"7", b'{"dispatch":"x"}', b"{}", b'{"dispatch":1,"pause":3}']
)
def test_what_cannot_be_read_is_an_empty_note(raw: bytes | None) -> None:
    """A damaged note costs a count, never an attempt."""
    assert decode(raw) == Note(dispatch=0)


def test_another_dispatch_keeps_only_the_signals() -> None:
    """Counts and pauses belong to one dispatch; consumed signals stay consumed."""
    assert FULL.for_dispatch(8) == Note(dispatch=8, signals={"go": 5})
    assert FULL.for_dispatch(7) is FULL


def test_a_retry_in_place_is_a_letting_go() -> None:
    """Both counts grow, so that the start it follows is not held against the task."""
    assert FULL.with_retry() == replace(FULL, let_go=3, retries=2)
    assert FULL.with_let_go().retries == 1


def test_progress_forgives_the_starts_before_it_once_each() -> None:
    """Those that were let go are not counted anyway; nothing is taken back."""
    note = Note(dispatch=7, let_go=2)
    assert note.with_progress(5) == replace(note, forgiven=3)
    assert note.with_progress(5, chance=True) == replace(note, forgiven=3, chances=1)
    assert note.with_progress(5).with_progress(3) == replace(note, forgiven=3)


def test_signals_and_pauses_are_added() -> None:
    """A newer pause replaces the older one; signals gather."""
    note = FULL.with_pause(4, 120).with_signals({"stop": 6, "go": 8})
    assert note.pause == Pause(number=4, until_ns=120)
    assert note.signals == {"go": 8, "stop": 6}
