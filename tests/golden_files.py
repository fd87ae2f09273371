"""Reading the golden transcripts."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"
SCENARIOS = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "resources")


@dataclass(frozen=True)
class Sent:
    """A recorded message."""

    subject: str
    msg_id: str
    headers: dict[str, str]
    body: Any

    @property
    def type(self) -> str:
        """The type of an event, empty for other messages."""
        return str(self.body.get("type", "")) if isinstance(self.body, dict) else ""

    @property
    def by_worker(self) -> bool:
        """Whether a worker has published this."""
        if self.subject.startswith("history."):
            return "worker_id" in self.body or self.type == "step.continue"
        own = ("$KV.checkpoints.", "$KV.worker_status.", "stream.", "ACK ")
        return self.subject.startswith(own)

    def raw(self) -> bytes:
        """Return the body as bytes."""
        if isinstance(self.body, dict) and list(self.body) == ["text"]:
            return str(self.body["text"]).encode()
        return b"" if self.body is None else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Scenario:
    """A transcript."""

    name: str
    workflow: dict[str, Any]
    final: dict[str, Any]
    messages: list[Sent]
    given: Any = None
    acts: list[list[Any]] = field(default_factory=list)


def load(name: str) -> Scenario:
    """Read a transcript."""
    found = json.loads((FOLDER / f"{name}.json").read_text())
    messages = [
        Sent(m["subject"], m["headers"].get("Nats-Msg-Id", ""), m["headers"], m["body"])
        for m in found["messages"]
    ]
    more = found.get("input"), found.get("acts", [])
    return Scenario(name, found["workflow"], found["final"], messages, *more)


def line(subject: str, msg_id: str, body: object) -> str:
    """Write a message as one comparable line: times and traces differ from run to run."""
    if isinstance(body, dict):
        left_out = {"timestamp", "trace_parent", "dispatch_nonce"}
        body = {key: value for key, value in body.items() if key not in left_out}
    return f"{subject} | {msg_id} | {json.dumps(body, sort_keys=True)}"
