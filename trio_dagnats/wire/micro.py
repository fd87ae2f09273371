"""The worker as a NATS micro service: names, subjects and answers of the protocol (ADR-32). Pure.

Every tool that speaks it finds the workers: ``nats micro list`` and ``nats micro info``. The
endpoint is a worker's own, so it is in no queue group, and its subject holds the worker's id.

===============================================  ==============================================
subject                                          who answers
===============================================  ==============================================
``$SRV.<verb>``                                  every service on the server
``$SRV.<verb>.trio-dagnats-worker``              every worker of ours
``$SRV.<verb>.trio-dagnats-worker.<worker>``     one of them
``trio-dagnats-worker.<worker>.attempts``        one: its attempts (``wire.tree``), in parts
===============================================  ==============================================

Written by the worker's ``observe.micro_service``, read by the client's ``workers`` (``trio-dagnats
ps``). Beside the directory (``wire.registration``), not instead of it: an entry there says that a
worker was alive within a minute and is DagNats's own; an answer here says that it is alive now.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import final

from trio_dagnats.errors import WireError
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.text import MISREAD, compact, rfc3339

SERVICE = "trio-dagnats-worker"
ENDPOINT = "attempts"
PREFIX = "$SRV"
"""The protocol's own; every micro service of the server hears what begins so."""
_TYPE = "io.nats.micro.v1"


@final
class Verb(StrEnum):
    """What can be asked of a service."""

    PING = "PING"
    INFO = "INFO"
    STATS = "STATS"


@final
@dataclass(slots=True)
class EndpointStats:
    """What the endpoint has done: requests, failed ones, the last failure, nanoseconds.

    Written by the micro service alone, with each question; counted from its start, never reset.
    """

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """One worker as its INFO tells it.

    Attributes:
        worker_id: the worker.
        subject: where its endpoint is asked; empty if it has none.
        hostname: the machine's name.
        pid: the process id, 0 if it is not told.
    """

    worker_id: str
    subject: str
    hostname: str = ""
    pid: int = 0


def verb_subject(verb: Verb | str, worker_id: str = "") -> str:
    """Return where all workers, or one of them, hear a verb; ``*`` stands for every verb."""
    subject = f"{PREFIX}.{verb}.{SERVICE}"
    return f"{subject}.{worker_id}" if worker_id else subject


def heard_subjects(worker_id: str) -> tuple[str, ...]:
    """Return what a worker subscribes to: every verb for all services, its name, and itself."""
    return f"{PREFIX}.*", verb_subject("*"), verb_subject("*", worker_id)


def endpoint_subject(worker_id: str) -> str:
    """Return where a worker is asked for its attempts."""
    return f"{SERVICE}.{worker_id}.{ENDPOINT}"


def verb_of(subject: str) -> Verb | None:
    """Return the verb of a subject, None if it has none that we know."""
    name = subject.split(".")[1] if subject.startswith(f"{PREFIX}.") else ""
    return Verb(name) if name in Verb.__members__ else None


def answer(verb: Verb, worker: WorkerRegistration, started_ns: int, stats: EndpointStats) -> bytes:
    """Write the answer to a verb; ``started_ns`` is the wall clock at the service's start."""
    head = {
        "name": SERVICE,
        "id": worker.worker_id,
        "version": worker.version,
        "metadata": _metadata(worker),
        "type": f"{_TYPE}.{verb.lower()}_response",
    }
    endpoint: dict[str, object] = {
        "name": ENDPOINT,
        "subject": endpoint_subject(worker.worker_id),
        "queue_group": "",
    }
    match verb:
        case Verb.PING:
            return compact(head)
        case Verb.INFO:
            description = f"DagNats worker for {', '.join(worker.task_types)}"
            endpoint["metadata"] = {"format": "application/json, in parts until more is false"}
            return compact({**head, "description": description, "endpoints": [endpoint]})
        case Verb.STATS:
            counted = {
                "num_requests": stats.requests,
                "num_errors": stats.errors,
                "last_error": stats.last_error,
                "processing_time": stats.processing_ns,
                "average_processing_time": stats.processing_ns // max(1, stats.requests),
            }
            started = rfc3339(started_ns)
            return compact({**head, "started": started, "endpoints": [{**endpoint, **counted}]})


def read_info(raw: bytes) -> ServiceInfo:
    """Read the INFO of a worker, whichever version it has.

    A worker without the endpoint is none the less one: it just cannot be asked.

    Raises:
        WireError: it is none.
    """
    try:
        found = json.loads(raw)
        subjects = {e["name"]: str(e["subject"]) for e in found["endpoints"]}
        metadata = found.get("metadata") or {}
        return ServiceInfo(
            worker_id=str(found["id"]),
            subject=subjects.get(ENDPOINT, ""),
            hostname=str(metadata.get("hostname", "")),
            pid=int(metadata.get("pid", 0)),
        )
    except MISREAD as error:
        raise WireError(f"not the INFO of a worker: {raw[:80]!r}") from error


def _metadata(worker: WorkerRegistration) -> dict[str, str]:
    """Return what the directory says, too, as strings: the protocol takes nothing else."""
    return {
        "hostname": worker.hostname,
        "pid": str(worker.pid),
        "task_types": ",".join(worker.task_types),
        "max_tasks": str(worker.max_tasks),
    }
