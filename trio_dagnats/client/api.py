"""Requests to the engine's API, and what its answers mean (contract 9.1).

Called by ``Client.register`` and ``Client.start`` only. An engine answers every request with
JSON, an error too; which is which says the key ``error`` and nothing else, so an answer is read
before it is believed. A server without an engine says at once that nobody serves the subject.
"""

import json

from trio_dagnats.errors import EngineError, Missing, NotStored, Refused
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.text import MISREAD, compact

PATIENCE = 10.0
"""Seconds; a busy engine answers late, a dead one never."""


async def ask(broker: Broker, subject: str, request: object) -> dict[str, object]:
    """Ask the engine and return its answer.

    Not asked again by itself: a start that was carried out although its answer is lost would
    begin a second run. Cancellation: the engine may have got the request.

    Raises:
        Refused: the engine will not do it; the text is the engine's own.
        EngineError: no engine serves this server, or it did not answer within 10 seconds.

    Args:
        broker: the server.
        subject: which request, as ``api.runs.start``.
        request: the body, written as JSON.
    """
    try:
        reply = await broker.request(subject, compact(request), timeout=PATIENCE)
    except Missing as missing:
        raise EngineError(
            f"no engine answers {subject} on this server: start `dagnats serve`, or "
            "trio_dagnats.local.LocalEngine for development"
        ) from missing
    except NotStored as silence:
        raise EngineError(f"the engine did not answer: {silence}") from silence
    try:
        found = json.loads(reply.body)
    except MISREAD as error:
        raise EngineError(f"the engine answered {subject} with {reply.body[:80]!r}") from error
    if not isinstance(found, dict):
        raise EngineError(f"the engine answered {subject} with {found!r}")
    if "error" in found:
        raise Refused(f"the engine refused {subject}: {found['error']}")
    return found
