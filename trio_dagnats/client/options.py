"""What workflows and steps can have: seconds here, integer nanoseconds on the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, final

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.definitions.retry import RetryPolicy
from trio_dagnats.wire.definitions.steps import SkipIf
from trio_dagnats.wire.text import NS


@final
@dataclass(frozen=True, slots=True)
class Retry:
    """When the engine runs a failed step again.

    Args:
        retries: executions after the first one (the wire's ``max_attempts``).
        delay: seconds before the first retry, at least 0.001.
        growth: ``fixed``, ``linear`` (delay times the attempt) or ``exponential``.
        multiplier: the factor of ``exponential``.
        max_delay: the longest delay in seconds; 0 for the engine's bound of an hour.

    Raises:
        UsageError: when the step is added: a value is out of range.
    """

    retries: int
    delay: float = 1.0
    growth: Literal["fixed", "linear", "exponential"] = "exponential"
    multiplier: float = 2.0
    max_delay: float = 0.0

    def to_wire(self) -> dict[str, object]:
        """Return the policy with the keys of a workflow's JSON, in nanoseconds."""
        found: dict[str, object] = {
            "max_attempts": self.retries,
            "strategy": self.growth,
            "initial_delay": to_ns("delay", self.delay),
            "max_delay": to_ns("max_delay", self.max_delay),
        }
        return {**found, "multiplier": self.multiplier} if self.growth == "exponential" else found


@final
@dataclass(frozen=True, slots=True)
class Rate:
    """How many tasks of a type may go in a time; the others wait for their turn.

    Args:
        limit: so many.
        period: in so many seconds.
        key: a dot path in the step's input: each value there has a limit of its own. Empty for one
            limit for all tasks of the type.
        units: how many of ``limit`` one task takes; for keyed limits.

    Raises:
        UsageError: when the step is added: a value is out of range.
    """

    limit: int
    period: float
    key: str = ""
    units: int = 1

    def to_wire(self) -> dict[str, object]:
        """Return the step's fields with the keys of a workflow's JSON, in nanoseconds."""
        found: dict[str, object] = {"limit": self.limit, "period": to_ns("period", self.period)}
        if not self.key:
            return {"rate_limit": found}
        return {"keyed_rate_limit": {"key": self.key, **found, "units": self.units}}


@final
@dataclass(frozen=True, slots=True)
class Priority:
    """Which runs go first among those that wait because of ``max_runs``.

    Args:
        key: a dot path in the input.
        rules: seconds, -600 to 600, by the value that stands there: a run goes before those that
            came up to so many seconds earlier.
        default: the seconds of other values.
    """

    key: str
    rules: Mapping[str, int]
    default: int = 0

    def to_wire(self) -> dict[str, object]:
        """Return it with the keys of a workflow's JSON."""
        return {"key": self.key, "rules": dict(self.rules), "default_offset": self.default}


@final
@dataclass(frozen=True, slots=True)
class CancelOn:
    """An event that cancels a run.

    Args:
        event: the events' name, as :meth:`Client.publish_event` has it.
        where: a dot path in the event.
        equals: what stands there: ``input.<path>``. A run whose input has nothing there is not
            cancelled.
    """

    event: str
    where: str
    equals: str

    def to_wire(self) -> dict[str, object]:
        """Return it with the keys of a workflow's JSON."""
        match = {"left": self.where, "op": "eq", "right": self.equals}
        return {"event": self.event, "match": match}


class EngineStepOptions(TypedDict, total=False):
    """What steps can have that the engine does itself.

    ``after``: the steps that come first, one id or several. ``skip_if``: skip it if a field of a
    parent's output compares so.
    """

    after: str | Sequence[str]
    skip_if: SkipIf


class StepOptions(EngineStepOptions, total=False):
    """What steps can have that a worker runs.

    ``after``: the steps whose outputs it needs, one id or several. ``timeout``: seconds for one
    attempt. ``retry``: instead of the workflow's. ``group``: only workers of that group run it.
    ``skip_if``: skip it if a field of a parent's output compares so. ``metadata``: free text
    fields. ``on_failure``, ``compensate``: the steps that handle its failure or undo it.
    ``rate``: how many tasks of its type may go in a time. ``max_at_once``: how many of them may
    be on their way, in all runs together.
    """

    timeout: float
    retry: Retry
    group: str
    metadata: Mapping[str, str]
    on_failure: str
    compensate: str
    rate: Rate
    max_at_once: int


class WorkflowOptions(TypedDict, total=False):
    """What a workflow can have.

    ``timeout``: seconds for a whole run, 0 for no limit. ``retry``: for every step that has no
    policy of its own. ``version``: free text; the engine does not interpret it. ``max_runs``: so
    many runs go on at once, the others wait. ``max_steps``: so many steps of a run.
    ``input_schema``: a JSON Schema of ``type``, ``required`` and ``properties``; an input that does
    not fit is refused. ``idempotency_key``: a dot path in the input; a second start with the same
    value there gives the first run. ``singleton``: one run at a time; while it goes on, ``skip``
    ends a second one at once as cancelled, ``cancel`` cancels the first. ``singleton_key``: a dot
    path in the input; one run at a time for each value there. ``cancel_on``: events that cancel a
    run, at most 5. ``priority``: which of the runs that wait for ``max_runs`` goes first.
    """

    timeout: float
    retry: Retry
    version: str
    max_runs: int
    max_steps: int
    input_schema: Mapping[str, object]
    idempotency_key: str
    singleton: Literal["skip", "cancel"]
    singleton_key: str
    cancel_on: Sequence[CancelOn]
    priority: Priority


def step_fields(options: StepOptions) -> dict[str, object]:
    """Return the options with the keys of a workflow's JSON, durations in nanoseconds."""
    found: dict[str, object] = {}
    after = options.get("after", ())
    if after:
        found["depends_on"] = [after] if isinstance(after, str) else list(after)
    if "timeout" in options:
        found["timeout"] = to_ns("timeout", options["timeout"])
    if "retry" in options:
        found["retry"] = policy(options["retry"])
    if "rate" in options:
        found |= options["rate"].to_wire()
    if "metadata" in options:
        found["metadata"] = dict(options["metadata"])
    plain = {
        "worker_group": options.get("group"),
        "skip_if": options.get("skip_if"),
        "on_failure": options.get("on_failure"),
        "compensate": options.get("compensate"),
        "max_task_concurrency": options.get("max_at_once"),
    }
    return found | {key: value for key, value in plain.items() if value}


def workflow_fields(options: WorkflowOptions) -> dict[str, object]:
    """Return the options with the keys of a workflow's JSON, durations in nanoseconds."""
    found: dict[str, object] = {
        "version": options.get("version", "1"),
        "timeout": to_ns("timeout", options.get("timeout", 0.0)),
    }
    limits = {key: value for key in ("max_runs", "max_steps") if (value := options.get(key))}
    if limits:
        found["concurrency"] = limits
    if "retry" in options:
        found["default_retry"] = policy(options["retry"])
    if "input_schema" in options:
        found["input_schema"] = dict(options["input_schema"])
    if "idempotency_key" in options:
        found["idempotency_key"] = options["idempotency_key"]
    if "singleton" in options:
        key = options.get("singleton_key", "")
        found["singleton"] = {"mode": options["singleton"], "key": key}
    elif "singleton_key" in options:
        raise UsageError("singleton_key= needs singleton='skip' or 'cancel'")
    if "priority" in options:
        found["priority"] = options["priority"].to_wire()
    if "cancel_on" in options:
        found["cancel_on"] = [one.to_wire() for one in options["cancel_on"]]
    return found


def to_ns(name: str, seconds: float) -> int:
    """Turn seconds into whole nanoseconds.

    Raises:
        UsageError: negative, infinite or no number.
    """
    if isinstance(seconds, bool) or not 0 <= seconds < float("inf"):
        raise UsageError(f"{name} must be seconds >= 0, not {seconds!r}")
    return round(seconds * NS)


def policy(retry: Retry) -> RetryPolicy:
    """Return a policy as the wire has it.

    Raises:
        UsageError: a value is out of range.
    """
    try:
        return RetryPolicy.model_validate(retry.to_wire())
    except ValueError as error:
        raise UsageError(f"{retry!r} is no retry policy: {error}") from error
