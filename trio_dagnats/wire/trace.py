"""W3C trace fields, carried along unchanged (contract 2.2, 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

NO_HEADERS: Mapping[str, str] = {}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """The trace fields of a message; empty strings where it has none."""

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


def from_headers(headers: Mapping[str, str]) -> TraceContext:
    """Take the trace fields from a message's headers."""
    if "traceparent" not in headers:
        return NO_TRACE
    return TraceContext(
        traceparent=headers["traceparent"],
        tracestate=headers.get("tracestate", ""),
        baggage=headers.get("baggage", ""),
    )
