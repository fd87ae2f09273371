"""Task messages that are no tasks: kept for inspection, never silently dropped (H4, H6).

The order is: the log has it, the dead letter is stored, the message is taken out of the queue. A
worker that dies in between leaves the message in the queue, and the next one stores it again under
the same id, which names the message's stream sequence.
"""

import trio

from trio_dagnats.attempt.life import Input
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.deadlines import FAREWELL

log = Log("trio_dagnats.worker")

HEADERS_MOST = 16 * 1024
"""Bytes that the dead letter's headers may need beside the message."""
KEEP_RETRY = 5.0
"""Seconds of the NAK when the dead letter could not be stored."""
SHOWN = 200
"""Bytes of the message that the log shows."""


async def keep(attempt: Attempt) -> Input:
    """Store the message among the engine's dead letters; say whether it is there.

    The headers are the engine's (contract 6.8), so that its tools list the entry. A message that
    leaves no room for them loses its end; the log has the beginning in any case.

    Without an answer within ``FAREWELL`` seconds the message is handed back for ``KEEP_RETRY``, and
    the next delivery tries again: it is not TERMed before it is kept. One that names its step goes
    on all the same, for the step has to be failed; the log alone has such a message then.

    Cancellation: it may or may not be stored; a drain's farewell then hands the message back.
    """
    delivery, shared = attempt.delivery, attempt.shared
    log.error(
        "not a task: %s: %s: %r",
        delivery.subject,
        attempt.complaint,
        delivery.body[:SHOWN],
        extra=attempt.log_fields,
    )
    headers = {
        "Dagnats-Dlq-Task": attempt.program.task_type,
        "Dagnats-Dlq-Error": attempt.complaint,
        "Dagnats-Dlq-Consumer": attempt.consumer.source.stream,
        "Dagnats-Dlq-Task-Subject": delivery.subject,
        "Dagnats-Dlq-Delivery-Count": str(delivery.deliveries),
    }
    try:
        await shared.broker.store(
            f"dead.{attempt.program.task_type}.unknown.unknown",
            delivery.body[: max(0, shared.broker.max_payload - HEADERS_MOST)],
            msg_id=f"dlq:task:{delivery.stream_sequence}",
            headers=headers,
            deadline=trio.current_time() + FAREWELL,
        )
    except BrokerError as error:
        log.warning("dead letter not stored: %s", error, extra=attempt.log_fields)
        attempt.nak_delay = KEEP_RETRY
        return Input.MESSAGE_NOT_KEPT
    return Input.MESSAGE_KEPT
