"""Talking to an engine over NATS: register, start, wait, signal, cancel, list.

May import ``wire``, ``transport`` and ``errors``. Called by the user, the command line and tests.
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
from trio_dagnats.wire.tree import AttemptTree, Place, Stands, TaskTree

__all__ = [
    "AttemptEnd",
    "AttemptTimeline",
    "AttemptTree",
    "CancelOn",
    "Chunk",
    "Client",
    "EngineStepOptions",
    "HistoryEvent",
    "Place",
    "Priority",
    "Rate",
    "Retry",
    "Run",
    "RunStatus",
    "RunTimeline",
    "SkipIf",
    "Stands",
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
