"""Talking to an engine over NATS: register, start, wait, signal, cancel, list.

::

    client     Client: what concerns no single run      api        requests to the engine
    run        Run: what concerns one                   stored     what stands in its buckets
    builder    Workflow: a definition, step by step     follow     a run's events, and its end
    options    what a step or a workflow may have       timeline   a run's attempts, put together
    schedule   runs that begin later                    workers    asking the workers themselves
    keys       idempotency keys

Where a client looks. Little goes through the engine's API: register, and start. Everything else is
read from or written to the places where the engine keeps it: snapshots, histories, definitions,
signals, the directory of workers. So reading works while no engine runs, and asks nothing of it.

A handle (``Run``) holds a connection and an id, and no state: each call asks the server anew.
Waits listen and look again from time to time, for neither alone is enough (``follow``). The
client has no task of its own between two calls.

Cancelling a call leaves the connection as it is. What was sent may be carried out all the same:
start with an idempotency key if that matters.

May import ``wire``, ``transport`` and ``errors``. Called by the user, the command line and tests.

Words: a *snapshot* is a run as the engine has stored it last; its *history* are the events;
*terminal* is a run that has ended, however it did.
"""

from trio_dagnats.client.builder import Workflow
from trio_dagnats.client.client import Client
from trio_dagnats.client.options import (
    CancelOn,
    EngineStepOptions,
    Priority,
    Rate,
    Retry,
    StepOptions,
    WorkflowOptions,
)
from trio_dagnats.client.run import Chunk, Run
from trio_dagnats.client.stored import Unserved
from trio_dagnats.client.timeline import AttemptEnd, AttemptTimeline, RunTimeline, StepTimeline
from trio_dagnats.client.workers import WorkerAttempts
from trio_dagnats.wire.definitions.steps import SkipIf
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.run import RunStatus, StepState, StepStatus, WorkflowRun
from trio_dagnats.wire.tree import AttemptTree, Phase, SourceLine, TaskTree

__all__ = [
    "AttemptEnd",
    "AttemptTimeline",
    "AttemptTree",
    "CancelOn",
    "Chunk",
    "Client",
    "EngineStepOptions",
    "HistoryEvent",
    "Phase",
    "Priority",
    "Rate",
    "Retry",
    "Run",
    "RunStatus",
    "RunTimeline",
    "SkipIf",
    "SourceLine",
    "StepOptions",
    "StepState",
    "StepStatus",
    "StepTimeline",
    "TaskTree",
    "Unserved",
    "WorkerAttempts",
    "Workflow",
    "WorkflowDef",
    "WorkflowOptions",
    "WorkflowRun",
]
