import pytest

from trio_dagnats.errors import UsageError
from trio_dagnats.wire import names


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("fetch", "fetch"),
        ("a.b", "a-b"),
        ("a b", "a_b"),
        ("é", "__"),
        ("語", "___"),
        ("A-_9", "A-_9"),
    ],
)
def test_sanitize_replaces_byte_by_byte(name: str, safe: str) -> None:
    """A durable's name keeps letters, digits, - and _, and replaces every other byte."""
    assert safe == names.sanitize(name)


def test_durable_and_filter_follow_the_contract() -> None:
    """The durable's name is sanitized and its filter is not."""
    assert names.durable_name("a.b", "g x") == "workers-a-b-g_x"
    assert names.durable_name("a.b") == "workers-a-b"
    assert names.filter_subject("a.b", "g") == "task.a.b.g.>"
    assert names.filter_subject("a.b") == "task.a.b.>"


def test_subjects_and_keys_join_their_parts() -> None:
    """Subjects and keys hold run, step and group where the contract puts them."""
    assert names.task_subject("t", "r") == "task.t.r"
    assert names.task_subject("t", "r", "g") == "task.t.g.r"
    assert names.history_subject("r") == "history.r"
    assert names.stream_subject("r", "s") == "stream.r.s"
    assert names.checkpoint_key("r", "s") == "r.s"
    assert names.signal_key("r", "go") == "r.go"
    assert names.run_key("r") == "run.r"
    assert names.kv_subject("signals", "r.go") == "$KV.signals.r.go"


def test_note_key_is_no_step_key() -> None:
    """The note's key cannot be the checkpoint key of any step: a step id has no equals sign."""
    assert names.note_key("r", "s") == "r.s=note"


@pytest.mark.parametrize("name", ["fetch", "media.render", "a-b_c", "語"])
def test_legal_task_types_pass(name: str) -> None:
    """Words joined by dots are task types."""
    assert names.check_task_type(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", ".a", "a.", "a b", "a*", "a.>", "a\n", "x" * 201]
)
def test_illegal_task_types_are_refused_by_value(name: str) -> None:
    """What cannot be part of a subject is refused, and the text shows it."""
    with pytest.raises(UsageError, match="task type"):
        names.check_task_type(name)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">"])
def test_illegal_groups_are_refused(name: str) -> None:
    """A group is one token: a dot would make its filter match other subjects."""
    with pytest.raises(UsageError, match="worker group"):
        names.check_group(name)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "wörker", "*"])
def test_illegal_worker_ids_are_refused(name: str) -> None:
    """A worker id is a key and a single token."""
    with pytest.raises(UsageError, match="worker id"):
        names.check_worker_id(name)


@pytest.mark.parametrize("name", ["", ".a", "a.", "a..b", "a b", "a*", "ü"])
def test_illegal_signal_names_are_refused(name: str) -> None:
    """A signal's name is part of a key."""
    with pytest.raises(UsageError, match="signal name"):
        names.check_signal_name(name)


@pytest.mark.parametrize("run_id", ["", "a.b", "a b"])
def test_illegal_run_ids_are_refused(run_id: str) -> None:
    """A run id is a single token of a key."""
    with pytest.raises(UsageError, match="run id"):
        names.check_run_id(run_id)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a", ""), ("a.b", "")),
        (("a", ""), ("a", "g")),
        (("a", "b"), ("a.b", "")),
        (("a.b", ""), ("a-b", "")),
        (("a", "b-c"), ("a-b", "c")),
    ],
)
def test_clashing_pairs_are_refused_with_both_names(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    """Overlapping filters and shared durables are found before the server sees them."""
    with pytest.raises(UsageError) as refused:
        names.check_served(second, [first])
    assert repr(first[0]) in str(refused.value)
    assert repr(second[0]) in str(refused.value)


def test_pairs_that_fit_are_served_side_by_side() -> None:
    """Different types, and different groups of one type, do not clash."""
    names.check_served(("a", "g"), [("a", "h"), ("b", ""), ("c.d", "")])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("task.a.>", "task.a.b.>", True),
        ("task.a.>", "task.b.>", False),
        ("task.*.b", "task.a.b", True),
        ("task.a", "task.a.b", False),
        ("task.a", "task.a", True),
        (">", "task.a", True),
    ],
)
def test_overlap_of_filters(first: str, second: str, *, expected: bool) -> None:
    """Two filters overlap if some subject matches both."""
    assert names.overlap(first, second) is expected


def test_a_durable_with_another_filter_is_a_clash() -> None:
    """The server would let us change its filter under its workers, so we refuse."""
    text = names.consumer_clash(("a.b", ""), [("workers-a-b", "task.a-b.>")])
    assert text is not None
    assert "task.a-b.>" in text


def test_our_own_durable_and_foreign_queues_are_no_clash() -> None:
    """A sibling's durable is reused; consumers of other subjects do not matter."""
    others = [("workers-a", "task.a.>"), ("workers-b", "task.b.>")]
    assert names.consumer_clash(("a", ""), others) is None


def test_an_overlapping_consumer_is_named() -> None:
    """The server would answer 10100; we say which consumer stands in the way."""
    text = names.consumer_clash(("a", ""), [("workers-a-b", "task.a.b.>")])
    assert text is not None
    assert "workers-a-b" in text
