"""trio-dagnats: the trio-native worker SDK for DagNats workflows.

Layers; imports point down only, and a test checks it on the real imports::

    cli, testing    the command line (extra ``cli``); the in-memory broker and pytest fixtures
    worker          handlers, contexts, attempts, and the nurseries that hold them
    client          register, start, wait, signal, cancel, list
    local           a real nats-server as a child process, and a local engine
    attempt         rules of one attempt: outcomes, its life as a table, notes (no I/O)
    transport       the port, nats-py through trio-asyncio behind it, the in-memory broker
    wire            facts and rules of the wire: names, tasks, events, workflows (no I/O)
    errors          the one exception tree

``client``, ``local``, ``attempt`` and ``transport`` do not import each other, but ``client`` and
``local`` use ``transport``. Only ``transport`` imports nats, asyncio or trio_asyncio, and late:
importing this package changes nothing in the process.
"""

from typing import TYPE_CHECKING

from trio_dagnats.errors import (
    DagnatsError,
    Fatal,
    RateLimited,
    Retryable,
    is_fatal,
    is_retryable,
)
from trio_dagnats.transport import ConnectOptions
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.worker.adapters import Continue
from trio_dagnats.worker.context import TaskContext
from trio_dagnats.worker.ledger import LedgerLine
from trio_dagnats.worker.reasons import CancelReason
from trio_dagnats.worker.steering import Inbox
from trio_dagnats.worker.telemetry import Telemetry
from trio_dagnats.worker.worker import Worker

if TYPE_CHECKING:
    from trio_dagnats.client import Client, Retry, Run, Workflow

__all__ = [
    "CancelReason",
    "Client",
    "ConnectOptions",
    "Continue",
    "DagnatsError",
    "Fatal",
    "Inbox",
    "LedgerLine",
    "RateLimited",
    "Retry",
    "Retryable",
    "Run",
    "TaskContext",
    "Telemetry",
    "Worker",
    "WorkerRegistration",
    "Workflow",
    "is_fatal",
    "is_retryable",
]

_OF_THE_CLIENT = frozenset({"Client", "Retry", "Run", "Workflow"})


def __getattr__(name: str) -> object:
    """Load the client when it is first asked for: a worker in production never does."""
    if name not in _OF_THE_CLIENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trio_dagnats import client  # noqa: PLC0415 - see above

    found: object = getattr(client, name)
    return found
