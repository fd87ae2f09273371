"""Feeding a transcript's events to the local engine's core."""

import json
from collections import Counter
from itertools import count

from golden_files import Scenario, Sent, line

from trio_dagnats.errors import UsageError
from trio_dagnats.local.engine import core
from trio_dagnats.local.engine.core import HANDLED, Applied
from trio_dagnats.local.engine.messages import render
from trio_dagnats.local.engine.state import RunState
from trio_dagnats.local.engine.supported import check_supported
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.workflow import WorkflowDef

START_NS = 1_786_000_000_000_000_000
STEP_NS = 1_000_000
CAUSES = {"step.sleep.completed": "sleep_complete", "step.failed": "step_timeout"}
"""What a timer puts into the history, and what the timer's own id ends in."""


def by_engine(sent: Sent) -> bool:
    """Whether the engine has published this as an effect of an event."""
    if sent.subject.startswith("history."):
        outside = {EventType.WORKFLOW_STARTED, EventType.WORKFLOW_CANCELLED}
        return not sent.by_worker and sent.type not in outside
    return sent.subject.startswith(("task.", "sleep.", "dead."))


class Feeding:
    """One transcript, fed to the core event by event; what it would send is collected."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._sequences = count(1)
        self._nonces = count()
        self.state: RunState | None = None
        self.lines: Counter[str] = Counter()

    def run(self) -> None:
        """Feed what came from workers and from outside, and let timers fire as recorded."""
        for sent in self._scenario.messages:
            self._pass_deadline(sent)
            if sent.subject == "history.$RUN" or sent.subject.startswith("task."):
                self._fire_what_caused(sent)
            if sent.subject == "history.$RUN" and sent.type in HANDLED:
                self._apply(sent)

    def _apply(self, sent: Sent) -> None:
        event = parse_event(json.dumps(sent.body).encode())
        sequence = next(self._sequences)
        time_ns = START_NS + sequence * STEP_NS
        what = Applied(event=event, sequence=sequence, msg_id=sent.msg_id, time_ns=time_ns)
        if self.state is None:
            payload = sent.body["payload"]
            definition = WorkflowDef.read(payload["workflow_def"])
            check_supported(definition)
            self._take(core.start(definition, payload.get("input"), what, self._nonce))
        else:
            self._take(core.apply(self.state, what, self._nonce))

    def _fire_what_caused(self, sent: Sent) -> None:
        """Fire the timer that this message is the effect of, if there is one."""
        if self.state is None or sent.by_worker:
            return
        timers = self._timers()
        ours = sent.msg_id if sent.msg_id in timers else ""
        kind = CAUSES.get(sent.type)
        if kind:
            ours = next((i for i in timers if f".{kind}" in i), "")
        if ours:
            now_ns = START_NS + next(self._sequences) * STEP_NS
            self._take(core.fire(self.state, ours, now_ns, self._nonce))

    def _pass_deadline(self, sent: Sent) -> None:
        """Let the run's deadline pass where it did: before the late completion."""
        timer = next((i for i in self._timers() if i.endswith(".run_timeout")), "")
        if timer and sent.type == EventType.STEP_COMPLETED:
            assert self.state is not None
            self._take(core.fire(self.state, timer, START_NS + 2 * 10**9, self._nonce))
            cancelled = {"type": "workflow.cancelled", "run_id": "$RUN"}
            self._apply(Sent("history.$RUN", "", {}, cancelled))

    def _timers(self) -> list[str]:
        return list(self.state.book.timers) if self.state else []

    def _take(self, state: RunState) -> None:
        if state is self.state:
            return
        self.state = state
        for effect in state.book.outbox:
            message = render(effect, state)
            body = json.loads(message.body)
            self.lines[line(message.subject, message.msg_id, body)] += 1

    def _nonce(self) -> str:
        return f"nonce{next(self._nonces)}"


def expected(scenario: Scenario) -> Counter[str]:
    """Return what the recorded engine sent, as comparable lines."""
    return Counter(
        line(sent.subject, sent.msg_id, sent.body) for sent in scenario.messages if by_engine(sent)
    )


def refusal(scenario: Scenario) -> str:
    """Return why the local engine refuses the workflow, empty if it does not."""
    for sent in scenario.messages:
        if sent.type == EventType.WORKFLOW_STARTED:
            try:
                check_supported(WorkflowDef.read(sent.body["payload"]["workflow_def"]))
            except UsageError as error:
                return str(error)
            return ""
    return ""


def outline(run: dict[str, object]) -> dict[str, object]:
    """Return a snapshot without what differs from run to run."""
    left_out = {"created_at", "completed_at", "trace_parent", "trace_id", "deadline"}
    kept = {key: value for key, value in run.items() if key not in left_out}
    steps = run["steps"]
    assert isinstance(steps, dict)
    gone = {"dispatch_nonce", "wake_at", "loop_started_at"}
    kept["steps"] = {
        step_id: {key: value for key, value in state.items() if key not in gone}
        for step_id, state in steps.items()
    }
    return kept
