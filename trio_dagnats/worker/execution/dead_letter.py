"""Task messages that are no tasks: kept for inspection, never silently dropped (H4, H6)."""

import logging

import trio

from trio_dagnats.errors import BrokerError
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.deadlines import FAREWELL

log = logging.getLogger("trio_dagnats.worker")

SHOWN = 200
"""Bytes of the message that the log shows."""


async def keep(attempt: Attempt) -> None:
    """Store the message among the engine's dead letters; the log has its beginning in any case.

    The headers are the engine's (contract 6.8), so that its tools list the entry.
    """
    delivery, shared = attempt.delivery, attempt.shared
    log.error(
        "not a task, taken out of the queue: %s: %s: %r",
        delivery.subject,
        attempt.complaint,
        delivery.body[:SHOWN],
        extra=attempt.log_fields,
    )
    headers = {
        "Dagnats-Dlq-Task": attempt.program.task_type,
        "Dagnats-Dlq-Error": attempt.complaint,
        "Dagnats-Dlq-Consumer": "TASK_QUEUES",
        "Dagnats-Dlq-Task-Subject": delivery.subject,
        "Dagnats-Dlq-Delivery-Count": str(delivery.deliveries),
    }
    try:
        await shared.broker.store(
            f"dead.{attempt.program.task_type}.unknown.unknown",
            delivery.body,
            msg_id=f"dlq:task:{delivery.stream_sequence}",
            headers=headers,
            deadline=trio.current_time() + FAREWELL,
        )
    except BrokerError as error:
        log.warning("dead letter not stored: %s", error, extra=attempt.log_fields)
