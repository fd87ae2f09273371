"""W3C trace fields, carried along unchanged (contract 2.2, 4.1).

From the headers of a task into the headers *and* the body of its events, there under names with an
underscore (``trace_parent``) and without the baggage. Nothing in them is read or checked: whoever
made a span gave them, and whoever shows the trace will judge them. A message without any costs
nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

NO_HEADERS: Mapping[str, str] = {}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """The trace fields of a message; empty strings where it has none.

    Without a ``traceparent`` the other two mean nothing and are not sent.

    Attributes:
        traceparent: version, trace, span and flags, as the header has them.
        tracestate: what vendors add to it.
        baggage: what the application adds.
    """

    traceparent: str = ""
    tracestate: str = ""
    baggage: str = ""

    def headers(self) -> Mapping[str, str]:
        """Return the headers to send: only the fields that are there."""
        if not self.traceparent:
            return NO_HEADERS
        fields = {
            "traceparent": self.traceparent,
            "tracestate": self.tracestate,
            "baggage": self.baggage,
        }
        return {name: value for name, value in fields.items() if value}


NO_TRACE = TraceContext()
"""The context of nearly all messages; compared by identity, which costs nothing for each event."""


def from_headers(headers: Mapping[str, str]) -> TraceContext:
    """Take the trace fields from a message's headers."""
    if "traceparent" not in headers:
        return NO_TRACE
    return TraceContext(
        traceparent=headers["traceparent"],
        tracestate=headers.get("tracestate", ""),
        baggage=headers.get("baggage", ""),
    )
