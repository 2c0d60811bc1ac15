"""One small HTTP request: no proxy, no redirect, a short time-out.

The standard library's ``urllib`` would send questions about this machine through the proxy that the
environment names.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

SECONDS = 1.0
"""A metadata service answers in milliseconds; elsewhere nobody does."""
_LONGEST = 65_536


class Trouble(Exception):
    """Somebody did not answer, or not as expected; the message quotes nothing of the answer."""


class Reply(NamedTuple):
    """Status, headers by lower-case name, and the text of an answer."""

    status: int
    headers: Mapping[str, str]
    body: str


def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Reply:
    """Send a request without a body. Raises Trouble when nothing answers in ``seconds``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise Trouble("the address is not one of http")
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = kind(parts.hostname, parts.port, timeout=seconds)
    try:
        connection.request(method, target, headers=dict(headers or {}))
        response = connection.getresponse()
        body = response.read(_LONGEST).decode("utf-8", "replace")
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, fields, body)
    except (OSError, http.client.HTTPException) as error:
        raise Trouble(f"no answer: {type(error).__name__}") from error
    finally:
        connection.close()
