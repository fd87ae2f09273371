"""Names on the wire: streams, buckets, subjects, keys, durables; what is legal, what collides.

Facts: streams and buckets in contract 1, subjects in contract 2.1, durables and what collides in
contract 3.2 to 3.4.
"""

import re
from collections.abc import Iterable, Sequence

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.subjects import SHOWN, TOKEN, TOKENS, is_id

TASK_QUEUES = "TASK_QUEUES"
WORKFLOW_HISTORY = "WORKFLOW_HISTORY"
DEAD_LETTERS = "DEAD_LETTERS"
EVENTS = "EVENTS"
SLEEP_TIMERS = "SLEEP_TIMERS"
STICKY_TASKS = "STICKY_TASKS"
TELEMETRY = "TELEMETRY"
TRIGGER_HISTORY = "TRIGGER_HISTORY"

BUCKET_CHECKPOINTS = "checkpoints"
BUCKET_DEFS = "workflow_defs"
BUCKET_RUNS = "workflow_runs"
BUCKET_SIGNALS = "signals"
BUCKET_WORKERS = "workers"
BUCKET_WORKER_STATUS = "worker_status"

MSG_ID = "Nats-Msg-Id"
"""The header by which a server knows a message that it has stored already."""

MAX_NAME = 200
"""Longer names would not fit subjects and durable names that hold several of them."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")
_KEY_TOKEN = re.compile(r"[-/_=a-zA-Z0-9]+")


def sanitize(name: str) -> str:
    """Make a name fit a durable's name, byte by byte as the Go worker does (contract 3.2)."""
    return _UNSAFE.sub(lambda found: "-" if found[0] == "." else "_" * len(found[0].encode()), name)


def durable_name(task_type: str, group: str = "") -> str:
    """Return the name of the durable that all workers of a task type and group share."""
    base = f"workers-{sanitize(task_type)}"
    return f"{base}-{sanitize(group)}" if group else base


def filter_subject(task_type: str, group: str = "") -> str:
    """Return the durable's filter; never sanitized."""
    return f"task.{task_type}.{group}.>" if group else f"task.{task_type}.>"


def task_subject(task_type: str, run_id: str, group: str = "") -> str:
    """Return where a task of a run is dispatched."""
    return f"task.{task_type}.{group}.{run_id}" if group else f"task.{task_type}.{run_id}"


def history_subject(run_id: str) -> str:
    """Return the subject of all events of a run."""
    return f"history.{run_id}"


def stream_subject(run_id: str, step_id: str) -> str:
    """Return the core subject of a step's live stream."""
    return f"stream.{run_id}.{step_id}"


def checkpoint_key(run_id: str, step_id: str) -> str:
    """Return the key of a step's checkpoint."""
    return f"{run_id}.{step_id}"


def beside_key(run_id: str, step_id: str) -> str:
    """Return the key of the checkpoint that an agent loop's handler writes beside its state."""
    return f"{run_id}.{step_id}=checkpoint"


def note_key(run_id: str, step_id: str) -> str:
    """Return the key of the attempt note: ``=`` cannot be in a step id (design 8.2)."""
    return f"{run_id}.{step_id}=note"


def map_prefix(run_id: str, step_id: str, iteration: int | None = None) -> str:
    """Return how the keys of a durable map's entries begin: those of one iteration, or all."""
    every = f"{run_id}.{step_id}=map."
    return every if iteration is None else f"{every}{iteration}."


def event_subject(name: str) -> str:
    """Return where an event for ``wait_for_event`` steps is published."""
    return f"event.{name}"


def signal_key(run_id: str, name: str) -> str:
    """Return the key of a run's signal."""
    return f"{run_id}.{name}"


def run_key(run_id: str) -> str:
    """Return the key of a run's snapshot."""
    return f"run.{run_id}"


def kv_subject(bucket: str, key: str) -> str:
    """Return the subject on which a bucket's key is written."""
    return f"$KV.{bucket}.{key}"


def check_task_type(name: str) -> str:
    """Return a task type that can be served.

    Raises:
        UsageError: it cannot be part of a subject.
    """
    return _check(
        "task type", name, TOKENS, "use words joined by dots, without spaces, '*' and '>'"
    )


def check_group(name: str) -> str:
    """Return a worker group's name.

    Raises:
        UsageError: it is not a single token; a dot would make the filter match other subjects.
    """
    return _check("worker group", name, TOKEN, "use one word, without dots, spaces, '*' and '>'")


def check_worker_id(name: str) -> str:
    """Return a worker id.

    Raises:
        UsageError: it is no single token of a key (contract 3.1).
    """
    return _check("worker id", name, _KEY_TOKEN, "use letters, digits and -_/= only")


def check_signal_name(name: str) -> str:
    """Return a signal's name.

    Raises:
        UsageError: it is no legal part of a key (contract 1.3).
    """
    return _check("signal name", name, _KEY, "use letters, digits, -_/= and dots between words")


def check_event_name(name: str) -> str:
    """Return the name of an event.

    Raises:
        UsageError: it cannot be part of a subject.
    """
    return _check(
        "event name", name, TOKENS, "use words joined by dots, without spaces, '*' and '>'"
    )


def check_map_name(name: str) -> str:
    """Return the name of a durable map.

    Raises:
        UsageError: it is no single token of a key, or a number, which unnamed maps are known by.
    """
    if name.isdigit():
        raise UsageError(f"map name {name!r} is not legal: a number is what an unnamed map has")
    return _check("map name", name, _KEY_TOKEN, "use letters, digits and -_/= only")


def check_run_id(run_id: str) -> str:
    """Return a run id.

    Raises:
        UsageError: it is no single token of a key.
    """
    return _check("run id", run_id, _KEY_TOKEN, "give the id that the start of the run returned")


def check_step_id(step_id: str) -> str:
    """Return the id of a step or of a map's instance.

    Raises:
        UsageError: it cannot be part of a subject and a key.
    """
    return _check("step id", step_id, _KEY, "give the id that the workflow calls the step by")


def check_workflow_name(name: str) -> str:
    """Return the name of a workflow.

    Raises:
        UsageError: no workflow can be registered under it: it is no key of a bucket.
    """
    if not (_KEY.fullmatch(name) and is_id(name)):
        remedy = "use letters, digits, -_/= and dots between words"
        raise UsageError(f"workflow name {name[:SHOWN]!r} is not legal: {remedy}")
    return name


def check_served(ours: tuple[str, str], others: Iterable[tuple[str, str]]) -> None:
    """Check that a (task type, group) pair can be served beside others.

    Raises:
        UsageError: it shares a durable name with one of them, or their filters overlap, which a
            work queue refuses (contract 1.2, 3.4).
    """
    name, wanted = durable_name(*ours), filter_subject(*ours)
    for other in others:
        if durable_name(*other) == name:
            raise UsageError(
                f"{_label(other)} and {_label(ours)} would share the consumer {name!r}: rename "
                "one of them"
            )
        if overlap(filter_subject(*other), wanted):
            raise UsageError(
                f"{_label(other)} takes {filter_subject(*other)!r} and {_label(ours)} takes "
                f"{wanted!r}, which overlap: a work queue refuses that; rename one of them, or "
                "serve the type either with groups or without"
            )


def consumer_clash(ours: tuple[str, str], others: Sequence[tuple[str, str]]) -> str | None:
    """Say why the server's consumers (name, filter) leave no room for ours, None if they do."""
    name, wanted = durable_name(*ours), filter_subject(*ours)
    for other, its_filter in others:
        if other == name and its_filter != wanted:
            return (
                f"the consumer {other!r} exists with the filter {its_filter!r}, but {_label(ours)} "
                f"needs {wanted!r}: rename the task type or group of one of them"
            )
        if other != name and overlap(its_filter, wanted):
            return (
                f"the consumer {other!r} takes {its_filter!r}, which overlaps the {wanted!r} of "
                f"{_label(ours)}; a work queue allows one consumer per subject: rename one of the "
                f"task types, or delete the consumer if nobody uses it any more"
            )
    return None


def overlap(first: str, second: str) -> bool:
    """Say whether two subject filters can match the same subject."""
    ours, theirs = first.split("."), second.split(".")
    for one, other in zip(ours, theirs, strict=False):
        if ">" in {one, other}:
            return True
        if one != other and "*" not in {one, other}:
            return False
    return len(ours) == len(theirs)


def _label(pair: tuple[str, str]) -> str:
    task_type, group = pair
    return f"task type {task_type!r} in group {group!r}" if group else f"task type {task_type!r}"


def _check(what: str, name: str, pattern: re.Pattern[str], remedy: str) -> str:
    if not pattern.fullmatch(name):
        raise UsageError(f"{what} {name!r} is not legal: {remedy}")
    if len(name) > MAX_NAME:
        raise UsageError(f"{what} {name[:20]!r}... has {len(name)} characters; at most {MAX_NAME}")
    return name
