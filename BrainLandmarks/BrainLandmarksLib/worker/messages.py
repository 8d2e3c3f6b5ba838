"""What the worker and its client say to each other: one JSON object a line, UTF-8, both ways.

docs/worker.md describes every message for people; ``REQUESTS`` and ``REPLIES`` are the same for
programs. Both sides refuse a message that does not fit, so a mistake shows where it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

VERSION = 1
"""Version of the messages; the first message of a worker names it, and a client refuses another."""

LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no message."""

Message = dict[str, Any]

JobProgress = Callable[[str, float, "float | None"], None]
"""Called with the stage, the fraction done (0 to 1) and the seconds left (None: not known yet); may
raise to end the job."""

REQUESTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "ping": {},
    "device": {"device": str},
    "estimate": {"model": str, "device": str, "quality": str},
    "detect": {
        "image": str,
        "output": str,
        "model": str,
        "device": str,
        "quality": str,
    },
    "parcellate": {"image": str, "output": str, "model": str, "device": str},
    "explain": {
        "image": str,
        "output": str,
        "model": str,
        "device": str,
        "landmarks": list,
        "layer": str,
    },
    "export": {
        "image": str,
        "output": str,
        "name": str,
        "model": str,
        "device": str,
        "landmarks": list,
        "layer": str,
        "files": str,
    },
    "layers": {"model": str, "device": str},
    "add": {
        "image": str,
        "landmarks": str,
        "protocol": str,
        "dataset": str,
    },
    "check": {"dataset": str},
    "annotate": {"labels": str, "output": str},
    "cancel": {"target": str},
}
"""Type of a request to its fields besides "v", "id" and "type"; all are required."""

OPTIONAL: dict[str, dict[str, type | tuple[type, ...]]] = {
    "detect": {"force": bool},
    "parcellate": {"force": bool},
}
"""Type of a request to the fields that it may have besides."""

REPLIES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "hello": {"library": str, "pid": int},
    "alive": {},
    "progress": {"stage": str, "fraction": (int, float), "eta_s": (int, float, type(None))},
    "result": {},
    "cancelled": {},
    "error": {"code": str, "message": str, "detail": str},
}
"""The same for replies; a "result" carries the fields of its request's type besides."""

FINAL = ("result", "cancelled", "error")
"""Replies after which a request is over."""

ERROR_CODES = (
    "bad_message",
    "user",
    "implausible",
    "out_of_memory",
    "bug",
    "crashed",
    "killed",
    "silent",
    "not_started",
    "version",
)
"""bad_message: the request does not fit. user: something the user can put right. implausible: no
head was recognised; the same request with "force" gives what was found. out_of_memory, bug: the
job failed, the worker lives. crashed, killed, silent, not_started, version: the worker itself;
these come from the client."""


class MessageError(ValueError):
    """A line that is no message; the text says why."""


def encode(message: Message) -> bytes:
    """One line, with the line feed.

    Raises:
        ValueError: it would be no message: a number is NaN, or it is longer than `LONGEST_LINE`.
    """
    # In ASCII: names of files may hold bytes that are no UTF-8.
    line = json.dumps(message, allow_nan=False).encode("ascii") + b"\n"
    if len(line) > LONGEST_LINE:
        raise MessageError(f"a line of more than {LONGEST_LINE} bytes")
    return line


def decode(line: bytes, known: dict[str, dict[str, type | tuple[type, ...]]]) -> Message:
    """The message of a line.

    Args:
        known: `REQUESTS` or `REPLIES`.

    Raises:
        MessageError: it is no JSON object, of another version, of an unknown type, or lacks a
            field.
    """
    if len(line) > LONGEST_LINE:
        raise MessageError(f"a line of more than {LONGEST_LINE} bytes")
    try:
        message = json.loads(line.decode("utf-8"))
    except ValueError:
        raise MessageError("not a line of JSON") from None
    if not isinstance(message, dict):
        raise MessageError("not a JSON object")
    if message.get("v") != VERSION:
        raise MessageError(f"message version {message.get('v')!r}, not {VERSION}")
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in known:
        raise MessageError(f"unknown type {kind!r}; known are {', '.join(known)}")
    if known is REQUESTS and not isinstance(message.get("id"), str):
        raise MessageError("no id")
    optional = OPTIONAL.get(kind, {}) if known is REQUESTS else {}
    for field, types in {**known[kind], **optional}.items():
        if field not in message:
            if field in optional:
                continue
            raise MessageError(f"{kind} lacks the field {field!r}")
        value = message[field]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise MessageError(f"the field {field!r} of {kind} has the wrong type")
    return message
