"""Building workflows with natural durations: seconds here, integer nanoseconds on the wire."""

from collections.abc import Mapping, Sequence
from typing import Unpack, cast, final

from trio_dagnats.client.options import (
    EngineStepOptions,
    StepOptions,
    WorkflowOptions,
    step_fields,
    to_ns,
    workflow_fields,
)
from trio_dagnats.errors import UsageError
from trio_dagnats.wire.definitions.steps import StepType
from trio_dagnats.wire.definitions.workflow import WorkflowDef


@final
class Workflow:
    """A workflow under construction; ``client.register`` takes it as it is.

    ::

        workflow = Workflow("report", timeout=3600)
        pages = workflow.step("fetch", retry=Retry(3))
        workflow.map("summarise", over=pages, max_items=100)

    Args:
        name: the name to register it under.
        **options: see :class:`WorkflowOptions`.

    Raises:
        UsageError: a duration or a policy is out of range.
    """

    def __init__(self, name: str, **options: Unpack[WorkflowOptions]) -> None:
        self._fields: dict[str, object] = {"name": name, **workflow_fields(options)}
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

    def agent(self, step_id: str, task: str = "", **options: Unpack[StepOptions]) -> str:
        """Add a step of the type ``agent``, which runs as one of :meth:`step`; return its id."""
        return self._add(step_id, StepType.AGENT, {"task": task or step_id}, options)

    def planner(
        self,
        step_id: str,
        task: str = "",
        *,
        max_steps: int,
        max_depth: int = 0,
        allowed_tasks: Sequence[str] = (),
        **options: Unpack[StepOptions],
    ) -> str:
        """Add a step whose handler returns more steps: ``{"steps": [{"id": ..., "task": ...}]}``.

        They run after it, as ``<step_id>.<id>``, and depend on each other only.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            task: the task type whose handler plans; the id when empty.
            max_steps: it may add at most so many, 1 to 100.
            max_depth: the longest chain among them, 0 for no bound.
            allowed_tasks: the task types that they may have; empty for all.
            **options: see :class:`StepOptions`.

        Raises:
            UsageError: a duration or a policy is out of range.
        """
        config: dict[str, object] = {"max_steps": max_steps}
        if max_depth:
            config["max_depth"] = max_depth
        if allowed_tasks:
            config["allowed_tasks"] = list(allowed_tasks)
        fields = {"task": task or step_id, "config": config}
        return self._add(step_id, StepType.PLANNER, fields, options)

    def sub_workflow(
        self,
        step_id: str,
        workflow: str = "",
        *,
        detach: bool = False,
        **options: Unpack[EngineStepOptions],
    ) -> str:
        """Add a step that is a run of another workflow, with this step's input; return its id.

        Its output is what :meth:`Run.output` of that run would return.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            workflow: the name that it is registered under; the id when empty.
            detach: do not wait for its end; the output is ``{"child_run_id": ...}``.
            **options: see :class:`EngineStepOptions`.
        """
        config = {"workflow": workflow or step_id, "detach": detach}
        return self._add(step_id, StepType.SUB_WORKFLOW, {"config": config}, options)

    def sleep(self, step_id: str, duration: float, **options: Unpack[EngineStepOptions]) -> str:
        """Add a step that the engine spends waiting; return its id.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            duration: seconds, up to 365 days.
            **options: see :class:`EngineStepOptions`.

        Raises:
            UsageError: the duration is out of range.
        """
        config = {"duration": to_ns("duration", duration)}
        return self._add(step_id, StepType.SLEEP, {"config": config}, options)

    def sleep_until(
        self, step_id: str, input_path: str, **options: Unpack[EngineStepOptions]
    ) -> str:
        """Add a step that waits for the RFC 3339 time at a dot path of the run's input."""
        config = {"until_input_path": input_path}
        return self._add(step_id, StepType.SLEEP, {"config": config}, options)

    def wait_for_event(
        self,
        step_id: str,
        event: str,
        *,
        where: str,
        equals: str,
        timeout: float,
        **options: Unpack[EngineStepOptions],
    ) -> str:
        """Add a step that waits for an event on ``event.<event>``; its output is the event.

        When the time is over, the step completes with ``{"timeout": true}``.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            event: the events' name.
            where: a dot path in the event.
            equals: what stands there: ``input.<path>`` or ``step.<id>.output.<path>``.
            timeout: seconds.
            **options: see :class:`EngineStepOptions`.

        Raises:
            UsageError: the timeout is out of range.
        """
        match = {"left": where, "op": "eq", "right": equals}
        config = {"event": event, "match": match, "timeout": to_ns("timeout", timeout)}
        return self._add(step_id, StepType.WAIT_FOR_EVENT, {"config": config}, options)

    def approval(
        self,
        step_id: str,
        subject: str,
        *,
        timeout: float,
        description: str = "",
        **options: Unpack[EngineStepOptions],
    ) -> str:
        """Add a step that waits for :meth:`Run.approve` or :meth:`Run.reject`; return its id.

        Args:
            step_id: letters, digits, ``-`` and ``_``.
            subject: where the engine asks: it publishes one JSON message there.
            timeout: seconds, at most 7 days; then the run fails.
            description: what to ask.
            **options: see :class:`EngineStepOptions`.

        Raises:
            UsageError: the timeout is out of range.
        """
        config: dict[str, object] = {"subject": subject, "timeout": to_ns("timeout", timeout)}
        if description:
            config["description"] = description
        return self._add(step_id, StepType.APPROVAL, {"config": config}, options)

    def build(self) -> WorkflowDef:
        """Return the definition, checked as a whole.

        Raises:
            UsageError: the text names the place and the mistake.
        """
        return WorkflowDef.read({**self._fields, "steps": self._steps})

    def _add(
        self,
        step_id: str,
        kind: StepType,
        fields: Mapping[str, object],
        options: StepOptions | EngineStepOptions,
    ) -> str:
        self._steps.append(
            {"id": step_id, "type": kind, **fields, **step_fields(cast("StepOptions", options))}
        )
        return step_id
