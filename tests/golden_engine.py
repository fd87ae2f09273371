"""Feeding a transcript's events to the local engine's core."""

import json
from collections import Counter
from dataclasses import replace
from itertools import count

from golden_files import Scenario, Sent, line, load

from trio_dagnats.errors import UsageError
from trio_dagnats.local.engine.core import transitions
from trio_dagnats.local.engine.core.messages import render
from trio_dagnats.local.engine.core.state import Kind, RunState
from trio_dagnats.local.engine.core.supported import check_supported
from trio_dagnats.local.engine.core.transitions import HANDLED, Applied
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import EventType, parse_event

START_NS = 1_786_000_000_000_000_000
STEP_NS = 1_000_000
CAUSES = {
    "step.sleep.completed": "sleep_complete",
    "step.failed": "step_timeout",
    "step.wait.timeout": "wait_timeout",
}
"""What a timer puts into the history, and what the timer's own id ends in."""


def by_engine(sent: Sent) -> bool:
    """Whether the engine has published this as an effect of an event."""
    if sent.subject.startswith("history."):
        outside = {
            EventType.WORKFLOW_STARTED,
            EventType.WORKFLOW_CANCELLED,
            EventType.WAIT_MATCHED,
        }
        return not sent.by_worker and sent.type not in outside
    return sent.subject.startswith(("task.", "sleep.", "dead."))


NO_MESSAGES = {Kind.WAITER, Kind.WAITER_GONE}
"""Effects that are keys of buckets."""


class Feeding:
    """One transcript, fed to the core event by event; what it would send is collected."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._sequences = count(1)
        self._nonces = count()
        self._runs: dict[str, RunState] = {}
        self.lines: Counter[str] = Counter()

    @property
    def state(self) -> RunState:
        """The run of the scenario."""
        return self._runs["$RUN"]

    def run(self) -> None:
        """Feed what came from workers and from outside, and let timers fire as recorded."""
        for sent in self._scenario.messages:
            run_id = sent.subject.rpartition(".")[2]
            self._pass_deadline(sent)
            if sent.subject.startswith(("history.", "task.")):
                self._fire_what_caused(sent, run_id)
            if sent.subject.startswith("history.") and sent.type in HANDLED:
                self._apply(sent, run_id)

    def _apply(self, sent: Sent, run_id: str) -> None:
        event = parse_event(json.dumps(sent.body).encode())
        sequence = next(self._sequences)
        time_ns = START_NS + sequence * STEP_NS
        if sent.type == EventType.WORKFLOW_SPAWN:
            event, run_id = replace(event, run_id="$CHILD"), "$CHILD"
        elif sent.type == EventType.CHILD_COMPLETED:
            child = self._runs["$CHILD"]
            output = {"output": child.run.output(child.book.definition)}
            event = replace(event, payload=json.dumps(sent.body["payload"] | output).encode())
        what = Applied(event=event, sequence=sequence, msg_id=sent.msg_id, time_ns=time_ns)
        if run_id in self._runs:
            self._take(transitions.apply(self._runs[run_id], what, self._nonce))
        elif sent.type in {EventType.WORKFLOW_STARTED, EventType.WORKFLOW_SPAWN}:
            self._take(transitions.start(self._start(sent), what, self._nonce))

    def _start(self, sent: Sent) -> transitions.Start:
        payload = sent.body["payload"]
        given = payload.get("input")
        if sent.type == EventType.WORKFLOW_SPAWN:
            child = load(payload["child_workflow"])
            return transitions.Start(
                definition=WorkflowDef.read(child.workflow),
                given=given,
                parent_run_id="$RUN",
                parent_step_id=sent.body["step_id"],
                root_run_id="$RUN",
            )
        definition = WorkflowDef.read(payload["workflow_def"])
        check_supported(definition)
        return transitions.Start(definition=definition, given=given)

    def _fire_what_caused(self, sent: Sent, run_id: str) -> None:
        """Fire the timer that this message is the effect of, if there is one."""
        if run_id not in self._runs or sent.by_worker:
            return
        timers = self._timers(run_id)
        ours = sent.msg_id if sent.msg_id in timers else ""
        kind = CAUSES.get(sent.type)
        if kind:
            ours = next((i for i in timers if f".{kind}" in i), "")
        if ours:
            now_ns = START_NS + next(self._sequences) * STEP_NS
            self._take(transitions.fire(self._runs[run_id], ours, now_ns, self._nonce))

    def _pass_deadline(self, sent: Sent) -> None:
        """Let the run's deadline pass where it did: before the late completion."""
        timer = next((i for i in self._timers("$RUN") if i.endswith(".run_timeout")), "")
        if timer and sent.type == EventType.STEP_COMPLETED:
            self._take(transitions.fire(self.state, timer, START_NS + 2 * 10**9, self._nonce))
            cancelled = {"type": "workflow.cancelled", "run_id": "$RUN"}
            self._apply(Sent("history.$RUN", "", {}, cancelled), "$RUN")

    def _timers(self, run_id: str) -> list[str]:
        return list(self._runs[run_id].book.timers) if run_id in self._runs else []

    def _take(self, state: RunState) -> None:
        if state is self._runs.get(state.run.run_id):
            return
        self._runs[state.run.run_id] = state
        for effect in state.book.outbox:
            if effect.kind in NO_MESSAGES:
                continue
            for message in render(effect, state):
                body = json.loads(message.body)
                self.lines[line(message.subject, message.msg_id, body)] += 1

    def _nonce(self) -> str:
        """Return a nonce; in the one scenario that has a child, its id."""
        made = f"nonce{next(self._nonces)}"
        return "$CHILD" if self._scenario.name == "sub" and not self._runs.get("$RUN") else made


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
