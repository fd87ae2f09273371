"""Building workflows with natural durations: seconds here, integer nanoseconds on the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack, final

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.retry import RetryPolicy
from trio_dagnats.wire.steps import SkipIf, StepType
from trio_dagnats.wire.text import NS
from trio_dagnats.wire.workflow import WorkflowDef


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
        """Return the policy with the contract's keys, in nanoseconds."""
        found: dict[str, object] = {
            "max_attempts": self.retries,
            "strategy": self.growth,
            "initial_delay": to_ns("delay", self.delay),
            "max_delay": to_ns("max_delay", self.max_delay),
        }
        return {**found, "multiplier": self.multiplier} if self.growth == "exponential" else found


class StepOptions(TypedDict, total=False):
    """What every kind of step can have.

    ``after``: the steps whose outputs it needs, one id or several. ``timeout``: seconds for one
    attempt. ``retry``: instead of the workflow's. ``group``: only workers of that group run it.
    ``skip_if``: skip it if a field of a parent's output compares so. ``metadata``: free text
    fields. ``on_failure``, ``compensate``: the steps that handle its failure or undo it.
    """

    after: str | Sequence[str]
    timeout: float
    retry: Retry
    group: str
    skip_if: SkipIf
    metadata: Mapping[str, str]
    on_failure: str
    compensate: str


@final
class Workflow:
    """A workflow under construction; ``client.register`` takes it as it is.

    ::

        workflow = Workflow("report", timeout=3600)
        pages = workflow.step("fetch", retry=Retry(3))
        workflow.map("summarise", over=pages, max_items=100)

    Args:
        name: the name to register it under.
        timeout: seconds for a whole run, 0 for no limit.
        retry: for every step that has no policy of its own.
        version: free text; the engine does not interpret it.
    """

    def __init__(
        self, name: str, *, timeout: float = 0.0, retry: Retry | None = None, version: str = "1"
    ) -> None:
        self._fields: dict[str, object] = {
            "name": name,
            "version": version,
            "timeout": to_ns("timeout", timeout),
        }
        if retry is not None:
            self._fields["default_retry"] = _policy(retry)
        self._steps: list[dict[str, object]] = []

    def step(self, step_id: str, task: str = "", **options: Unpack[StepOptions]) -> str:
        """Add a step that a worker runs once; return its id.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            task: the task type whose handler runs it; the id when empty.
            **options: see :class:`StepOptions`.

        Raises:
            UsageError: a duration or a policy is out of range.
        """
        return self._add(step_id, StepType.NORMAL, {"task": task or step_id}, options)

    def agent_loop(
        self,
        step_id: str,
        task: str = "",
        *,
        max_iterations: int,
        max_duration: float = 0.0,
        loop_delay: float = 0.0,
        **options: Unpack[StepOptions],
    ) -> str:
        """Add a step that a worker runs again and again until it completes; return its id.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            task: the task type whose handler runs it; the id when empty.
            max_iterations: how often it may run; the last time it must complete.
            max_duration: seconds from the first iteration's end, 0 for no limit.
            loop_delay: seconds between two iterations.
            **options: see :class:`StepOptions`.

        Raises:
            UsageError: a duration or a policy is out of range.
        """
        config = {
            "max_iterations": max_iterations,
            "max_duration": to_ns("max_duration", max_duration),
            "loop_delay": to_ns("loop_delay", loop_delay),
        }
        fields = {"task": task or step_id, "config": config}
        return self._add(step_id, StepType.AGENT_LOOP, fields, options)

    def map(
        self,
        step_id: str,
        task: str = "",
        *,
        over: str,
        max_items: int = 1000,
        **options: Unpack[StepOptions],
    ) -> str:
        """Add a step that runs once for each item of a list; its output is the list of results.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            task: the task type whose handler runs each item; the id when empty.
            over: the step whose output is the list.
            max_items: at most so many, 1 to 10000.
            **options: see :class:`StepOptions`; ``after`` must stay away.

        Raises:
            UsageError: ``after`` is given, or a duration or a policy is out of range.
        """
        if "after" in options:
            raise UsageError(f"map step {step_id!r} depends on over={over!r} alone; drop after=")
        fields = {
            "task": task or step_id,
            "config": {"max_items": max_items},
            "depends_on": [over],
        }
        return self._add(step_id, StepType.MAP, fields, options)

    def sleep(self, step_id: str, duration: float, *, after: str | Sequence[str] = ()) -> str:
        """Add a step that the engine spends waiting; return its id.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            duration: seconds, up to 365 days.
            after: the steps that come first.

        Raises:
            UsageError: the duration is out of range.
        """
        config = {"duration": to_ns("duration", duration)}
        return self._add(step_id, StepType.SLEEP, {"config": config}, {"after": after})

    def build(self) -> WorkflowDef:
        """Return the definition, checked as a whole.

        Raises:
            UsageError: the text names the place and the mistake.
        """
        return WorkflowDef.read({**self._fields, "steps": self._steps})

    def _add(
        self, step_id: str, kind: StepType, fields: Mapping[str, object], options: StepOptions
    ) -> str:
        found: dict[str, object] = {"id": step_id, "type": kind, **fields}
        after = options.get("after", ())
        if after:
            found["depends_on"] = [after] if isinstance(after, str) else list(after)
        if "timeout" in options:
            found["timeout"] = to_ns("timeout", options["timeout"])
        if "retry" in options:
            found["retry"] = _policy(options["retry"])
        if "group" in options:
            found["worker_group"] = options["group"]
        if "skip_if" in options:
            found["skip_if"] = options["skip_if"]
        if "metadata" in options:
            found["metadata"] = dict(options["metadata"])
        for key in ("on_failure", "compensate"):
            if options.get(key):
                found[key] = options.get(key)
        self._steps.append(found)
        return step_id


def to_ns(name: str, seconds: float) -> int:
    """Turn seconds into whole nanoseconds.

    Raises:
        UsageError: negative, infinite or no number.
    """
    if isinstance(seconds, bool) or not 0 <= seconds < float("inf"):
        raise UsageError(f"{name} must be seconds >= 0, not {seconds!r}")
    return round(seconds * NS)


def _policy(retry: Retry) -> RetryPolicy:
    try:
        return RetryPolicy.model_validate(retry.to_wire())
    except ValueError as error:
        raise UsageError(f"{retry!r} is no retry policy: {error}") from error
