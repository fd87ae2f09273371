"""What the engine has stored about runs and workflows, as far as an attempt must know it.

Read rarely: a run's snapshot can be a megabyte (contract H29), and reading it for every task costs
a third of the throughput (design 8.5).

| what | by | for whom, and when | kept |
|---|---|---|---|
| a run's status, deadline | ``look`` | fast path: a task that was stored 1 s ago or more | no |
| the same | ``look`` | upkeep: an attempt of 1 s or more; a cancellation in doubt | no |
| the same | ``run`` | triage: a redelivery; an old task that has left the fast path | no |
| a step's bounds | ``step`` | a loop's iteration, a pause, the end of a durable map | by workflow |

No read of these may fail an attempt: what cannot be read in time is unknown, and the attempt goes
on as if its run were alive and its step without bounds.

``run`` waits in the attempt's task. ``look`` is for callers that have none, or must not wait: one
task of the worker (:meth:`EngineFacts.serve`) reads for all of them, up to ``MOST_AT_ONCE`` runs in
one request, and calls back. For a queue of old tasks that made 7 us of 40 a task.
"""

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, final

import trio
from pydantic_core import from_json

from trio_dagnats.errors import BrokerError, Missing, UsageError, WireError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Broker, Entry
from trio_dagnats.wire.names import BUCKET_DEFS, BUCKET_RUNS, run_key
from trio_dagnats.wire.subjects import is_key
from trio_dagnats.wire.task import Task
from trio_dagnats.wire.text import MISREAD, NS, parse_rfc3339

log = Log("trio_dagnats.worker")

CANCELLED = "cancelled"
"""The status of a run that was cancelled."""
PATIENCE = 2.0
"""Seconds for such a read; the Go worker takes the same (contract 5, step 4)."""
CACHED_WORKFLOWS = 256
"""Workflows whose bounds are kept; the one that was read first goes first."""
MOST_AT_ONCE = 64
"""Runs of one read; more would keep the first of them waiting."""


@final
class StepFacts(NamedTuple):
    """Bounds of a step; seconds, 0 for none. ``warn_at`` is an iteration, counted from 1.

    ``retries`` are those of the step's policy, else of the workflow's, else the step's plain
    number. What a loop may take (``max_iterations``, ``max_duration``) is of the step's config.
    """

    retries: int = 0

    timeout: float = 0.0
    max_iterations: int = 0
    max_duration: float = 0.0
    warn_at: int = 0


@final
class RunFacts(NamedTuple):
    """A run's status (empty if unknown) and deadline (nanoseconds since the epoch, 0 for none).

    The deadline is the engine's, by its own clock: whoever acts on it leaves that some slack.
    """

    status: str = ""
    deadline_ns: int = 0


ABSENT_FOR = 30.0
"""Seconds for which a bucket that is not there is not asked for again."""

NO_RUN = RunFacts()
"""A run that nobody knows, or that could not be read: it counts as alive."""
NO_STEP = StepFacts()
"""A step of which no bounds are known."""


@final
class RunLook:
    """A look at a run for which no task waits; see ``port.Pending``.

    It is something like a post, so that an attempt can hold it in the same place and abandon it in
    the same way. Its deadline is not looked at, for each read has ``PATIENCE``.
    """

    __slots__ = ("deadline", "run_id", "tell")

    def __init__(self, run_id: str, tell: Callable[[RunFacts], None], deadline: float) -> None:
        self.run_id = run_id
        self.tell: Callable[[RunFacts], None] | None = tell
        self.deadline = deadline

    def abandon(self) -> None:
        """Let nobody be told."""
        self.tell = None


@final
class EngineFacts:
    """Reads runs each time, workflows once.

    Workflows are looked up by name and may change meanwhile (contract H28): bounds may be old ones.
    Runs change all the time, so nothing of them is kept.

    A server without one of the buckets (a split engine) is not asked again for ``ABSENT_FOR``
    seconds: else each old task would cost a request that finds nothing.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._looks: deque[RunLook] = deque()
        self._asked = trio.lowlevel.ParkingLot()
        self._steps: OrderedDict[str, dict[str, StepFacts]] = OrderedDict()
        self._absent: dict[str, float] = {}

    def keeps_no_runs(self, now: float) -> bool:
        """Say whether this server was found to keep no runs, not long before ``now``."""
        return self._absent.get(BUCKET_RUNS, 0.0) > now

    async def run(self, run_id: str) -> RunFacts:
        """Read a run's status and deadline; unknown when the server does not answer in time."""
        return _run_facts(await self._read(BUCKET_RUNS, run_key(run_id)))

    def look(self, run_id: str, tell: Callable[[RunFacts], None], deadline: float) -> RunLook:
        """Read a run without a task that waits, together with others; bounded by the attempts.

        Never waits; ``tell`` is called later, never from in here, and always, unless the look is
        abandoned: with ``NO_RUN`` if the run could not be read. It must not wait.
        """
        look = RunLook(run_id, tell, deadline)
        self._looks.append(look)
        self._asked.unpark_all()
        return look

    async def serve(self) -> None:
        """Tell those who look at runs, until cancelled; run by ``service``.

        One read at a time: what is asked for meanwhile makes the next one larger, which is what
        bounds the requests on a busy server.
        """
        while True:
            if not self._looks:
                await self._asked.park()
            looks = self._next_looks()
            found = await self._read_many(BUCKET_RUNS, [run_key(run_id) for run_id in looks])
            for run_id, those in looks.items():
                entry = found.get(run_key(run_id))
                facts = _run_facts(entry.value if entry else None)
                for look in those:
                    if look.tell is not None:
                        look.tell(facts)

    def _next_looks(self) -> dict[str, list[RunLook]]:
        """Take the next looks, by their runs: the items of a map look at one, read once."""
        taken: dict[str, list[RunLook]] = {}
        while self._looks and len(taken) < MOST_AT_ONCE:
            look = self._looks.popleft()
            if look.tell is not None:
                taken.setdefault(look.run_id, []).append(look)
        return taken

    async def step(self, task: Task) -> StepFacts:
        """Return the bounds of a task's step; none when its workflow cannot be read.

        An instance of a map (``<step>.map.<index>``) has those of its step.
        """
        workflow = task.workflow_name
        if not is_key(workflow):  # none, or one under which nothing can be registered
            return NO_STEP
        if workflow not in self._steps:
            raw = await self._read(BUCKET_DEFS, workflow)
            if raw is None:
                return NO_STEP
            self._steps[workflow] = _step_facts(raw)
            if len(self._steps) > CACHED_WORKFLOWS:
                self._steps.popitem(last=False)
        steps = self._steps[workflow]
        instance = task.step_id.rpartition(".map.")[0]
        return steps.get(task.step_id) or steps.get(instance) or NO_STEP

    async def _read(self, bucket: str, key: str) -> bytes | None:
        entry = (await self._read_many(bucket, [key])).get(key)
        return entry.value if entry else None

    async def _read_many(self, bucket: str, keys: Sequence[str]) -> Mapping[str, Entry]:
        """Read keys in one request; without an answer in ``PATIENCE`` seconds there are none."""
        now = trio.current_time()
        if self._absent.get(bucket, now) > now:
            return {}
        try:
            return await self._broker.kv_get_many(bucket, keys, deadline=now + PATIENCE)
        except Missing:
            self._absent[bucket] = now + ABSENT_FOR
        except (BrokerError, UsageError):  # contract 5, step 4: any error means "go on"
            log.debug("%s not read", bucket, exc_info=True)
        return {}


def _run_facts(raw: bytes | None) -> RunFacts:
    """Read a snapshot; only these two fields of it, whatever else an engine has in there."""
    try:
        run = from_json(raw or b"{}")
        deadline = run.get("deadline")
        return RunFacts(
            status=str(run.get("status", "")),
            deadline_ns=parse_rfc3339(deadline) if isinstance(deadline, str) else 0,
        )
    except (*MISREAD, WireError):
        return NO_RUN


def _step_facts(raw: bytes) -> dict[str, StepFacts]:
    """Read a workflow's definition: the bounds of its steps, by their ids."""
    try:
        workflow = json.loads(raw)
        default = workflow.get("default_retry")
        return {str(step["id"]): _one_step(step, default) for step in workflow["steps"]}
    except MISREAD:
        return {}


def _one_step(step: dict[str, object], default: object) -> StepFacts:
    config = step.get("config")
    bounds = config if isinstance(config, dict) else {}
    policy = step.get("retry") or default  # contract 6.4
    retries = policy.get("max_attempts") if isinstance(policy, dict) else step.get("retries")
    return StepFacts(
        retries=_whole(retries),
        timeout=_whole(step.get("timeout")) / NS,
        max_iterations=_whole(bounds.get("max_iterations")),
        max_duration=_whole(bounds.get("max_duration")) / NS,
        warn_at=_whole(bounds.get("budget_warn_at")),
    )


def _whole(value: object) -> int:
    """Read a bound that another program has written; what is none counts as no bound."""
    return value if isinstance(value, int) and value > 0 else 0
