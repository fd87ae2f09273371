"""trio-dagnats: the trio-native worker SDK for DagNats workflows.

Layers; imports point down only, and a test checks it on the real imports::

    telemetry       the words of the seam for spans, for those who write an exporter
    cli, testing    the command line (extra ``cli``); the in-memory broker and pytest fixtures
    worker          handlers, contexts, attempts, and the nurseries that hold them
    client          register, start, wait, signal, cancel, list
    local           a real nats-server as a child process, and a local engine
    attempt         rules of one attempt: outcomes, its life as a table, notes (no I/O)
    transport       the port, nats-py through trio-asyncio behind it, the in-memory broker
    wire            facts and rules of the wire: names, tasks, events, workflows (no I/O)
    errors          the one exception tree

``client``, ``local``, ``attempt`` and ``transport`` do not import each other, but ``client`` and
``local`` use ``transport``. Only ``transport.nats_py`` imports nats, asyncio or trio_asyncio, and
late: importing this package changes nothing in the process. Each room says in its ``__init__`` what
lives there, who calls it and what its words mean.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_dagnats.attempt.reasons import CancelReason
    from trio_dagnats.client import Client, Retry, Run, Workflow
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
    from trio_dagnats.worker.context.context import TaskContext
    from trio_dagnats.worker.context.steering import Inbox
    from trio_dagnats.worker.drain.ledger import LedgerLine
    from trio_dagnats.worker.handlers.adapters import Continue
    from trio_dagnats.worker.handlers.register import HandleOptions
    from trio_dagnats.worker.telemetry import Telemetry
    from trio_dagnats.worker.worker import Worker

__all__ = [
    "CancelReason",
    "Client",
    "ConnectOptions",
    "Continue",
    "DagnatsError",
    "Fatal",
    "HandleOptions",
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

_HOMES = {
    "client": ("Client", "Retry", "Run", "Workflow"),
    "errors": (
        "DagnatsError",
        "Fatal",
        "RateLimited",
        "Retryable",
        "is_fatal",
        "is_retryable",
    ),
    "transport": ("ConnectOptions",),
    "wire.registration": ("WorkerRegistration",),
    "worker.handlers.adapters": ("Continue",),
    "worker.handlers.register": ("HandleOptions",),
    "worker.context.context": ("TaskContext",),
    "worker.drain.ledger": ("LedgerLine",),
    "attempt.reasons": ("CancelReason",),
    "worker.context.steering": ("Inbox",),
    "worker.telemetry": ("Telemetry",),
    "worker.worker": ("Worker",),
}
_HOME = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for.

    A worker never needs the client, and a command line has to be up before anything can be slow: a
    Ctrl-C in the middle of imports would end in a traceback.
    """
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
