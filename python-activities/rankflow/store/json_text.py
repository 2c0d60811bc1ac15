"""JSON that earlier releases wrote with Python's own names in it."""

import json

import msgspec


def as_json(text: bytes) -> bytes:
    """The same with null for NaN and infinities, which Python writes and reads and JSON has not.

    Raises ValueError or RecursionError for what is no JSON apart from that.
    """
    return msgspec.json.encode(json.loads(text))
