"""What may stand in a line of the NATS protocol: subjects, names, keys, headers. Pure.

A blank would begin the next part of the line, a line end another command, carried out with the
rights of this connection; and a server ends the connection on which a line is too long. So a text
that cannot stand there is refused before anything is sent.
"""

import re
from collections.abc import Mapping

from trio_dagnats.errors import UsageError

SHORT = 900
"""Characters of subject and reply subject together that fit every server's lines."""
MAX_BYTES = 3900
"""Bytes that they may have: a server's lines have 4096 (``max_control_line``), and sizes follow."""
MAX_ID_BYTES = 1500
"""Bytes of a run's or a step's id: subjects and keys hold both of them, and more."""
SHOWN = 80
"""Characters of a refused text that an error shows."""

_CHARS = r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]"
_PART = r"[^\s.*>\x00-\x1f\x7f-\x9f\ud800-\udfff]"
TOKEN = re.compile(rf"{_PART}+")
TOKENS = re.compile(rf"{_PART}+(\.{_PART}+)*")
"""Parts joined by dots: none is empty, and none is a wildcard."""
_WORD = re.compile(rf"{_CHARS}+")
_FILTER = re.compile(rf"(?:(?:{_PART}+|\*)\.)*(?:{_PART}+|\*|>)")
_NAME = re.compile(r"[^\s.*>/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def check_address(subject: str, reply: str = "") -> None:
    """Check what a message is sent to, and where its answer shall go (empty for none).

    Raises:
        UsageError: one of them holds a blank or a control character, or has no UTF-8 form; the
            subject is empty; or they are too long together.
    """
    for what, text in (("subject", subject), ("reply subject", reply or "none")):
        if not _WORD.fullmatch(text):
            raise UsageError(f"{what} {_shown(text)} is not legal: {_why(text)}")
    if len(subject.encode()) + len(reply.encode()) > MAX_BYTES:
        raise UsageError(
            f"subject {_shown(subject)} is too long for a server's lines: with its reply subject "
            f"it may have {MAX_BYTES} bytes; give shorter names"
        )


def check_filter(subject: str) -> str:
    """Return what can be subscribed to, or read from a stream.

    Raises:
        UsageError: it is no subject, with or without wildcards.
    """
    if not _FILTER.fullmatch(subject) or len(subject.encode()) > MAX_BYTES:
        raise UsageError(
            f"filter {_shown(subject)} is not legal: use words joined by dots, '*' for a whole "
            "word and '>' for all that follow"
        )
    return subject


def check_queue(name: str) -> str:
    """Return the name of a queue group.

    Raises:
        UsageError: it is empty, or holds a blank or a control character.
    """
    if not _WORD.fullmatch(name) or len(name) > SHORT:
        raise UsageError(f"queue group {_shown(name)} is not legal: {_why(name)}")
    return name


def check_name(name: str) -> str:
    """Return the name of a stream, a bucket or a consumer.

    Raises:
        UsageError: it is not one word of a subject, or holds a slash, which servers refuse.
    """
    if not _NAME.fullmatch(name) or len(name) > SHORT:
        raise UsageError(
            f"name {_shown(name)} of a stream, bucket or consumer is not legal: use one word, "
            "without dots, slashes, spaces, '*' and '>'"
        )
    return name


def is_key(text: str) -> bool:
    """Say whether a text can be a key of a bucket: words joined by dots, no wildcards."""
    return TOKENS.fullmatch(text) is not None and len(text.encode()) <= MAX_BYTES


def is_id(text: str) -> bool:
    """Say whether a text can be the id of a run or a step: part of subjects and keys."""
    return is_key(text) and len(text.encode()) <= MAX_ID_BYTES


def check_key(key: str) -> str:
    """Return a key of a bucket, or another subject that stands for itself alone.

    Raises:
        UsageError: it is none; a wildcard would stand for other keys.
    """
    if not is_key(key):
        raise UsageError(
            f"key {_shown(key)} is not legal: use words joined by dots, without spaces, '*' and "
            f"'>', {MAX_BYTES} bytes at most"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return how keys begin; empty for all of them.

    Raises:
        UsageError: no key can begin so.
    """
    if prefix:
        check_key(prefix.removesuffix("."))
    return prefix


def check_msg_id(msg_id: str) -> None:
    """Check a message's id, which is compared and so cannot be mended as other headers are.

    Raises:
        UsageError: it holds a control character, or has no UTF-8 form.
    """
    if _CONTROL.search(msg_id) or _SURROGATE.search(msg_id):
        raise UsageError(f"message id {_shown(msg_id)} is not legal: {_why(msg_id)}")


def clean_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as they can be sent: each control character in a value becomes a blank.

    Raises:
        UsageError: a name is no HTTP token, or a value has no UTF-8 form.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise UsageError(
                f"header name {_shown(name)} is not legal: use letters, digits and '-', no blanks "
                "and no colon"
            )
        if _SURROGATE.search(value):
            raise UsageError(f"header {name}: {_shown(value)} is not legal: {_why(value)}")
    return {name: _CONTROL.sub(" ", value) for name, value in headers.items()}


def _why(text: str) -> str:
    if not text:
        return "it is empty"
    if _SURROGATE.search(text):
        return "it holds half of a surrogate pair, which UTF-8 cannot write"
    return "leave out blanks and control characters"


def _shown(text: str) -> str:
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."
