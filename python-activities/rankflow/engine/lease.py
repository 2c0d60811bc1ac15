"""When an attempt must let go: the right to work is a lease on the monotonic clock.

A partitioned or frozen engine cannot be told that its batch was given to another, so it must
notice by itself. The server's reply to any call is the acknowledgement; the SDK does not show
that of a single heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta

from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.faults import faults

log = logging.getLogger(__name__)

CONTACT_SECONDS = 5.0
"""How often the server is asked for a sign of life; well below the heartbeat time-outs in use."""


class Contact:
    """Knows when the Temporal server last answered this engine."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the server last answered."""
        return time.monotonic() - self._last

    async def keep(self, client: Client) -> None:
        """Ask the server forever."""
        while True:
            try:
                await client.workflow_service.get_system_info(
                    GetSystemInfoRequest(), timeout=timedelta(seconds=CONTACT_SECONDS)
                )
                self._last = time.monotonic()
            except RPCError as error:
                log.warning("the Temporal server does not answer: %s", error.status)
            await asyncio.sleep(CONTACT_SECONDS)


class Lease:
    """The lease of one attempt; ``check`` is called about once a second."""

    def __init__(self, contact: Contact, seconds: float | None) -> None:
        """``seconds``: heartbeat time-out of the activity; None (no time-out) never expires."""
        self._contact = contact
        self._seconds = seconds
        self._checked = time.monotonic()

    def renew(self) -> None:
        """Begin anew after a time in which there was nothing to let go of."""
        self._checked = time.monotonic()

    def check(self) -> None:
        """Raise LEASE_LOST (retryable) when another engine may have been given the batch."""
        now = time.monotonic()
        gap, self._checked = now - self._checked, now
        if self._seconds is None or not faults().fence:
            return
        if gap > self._seconds:
            raise RankflowError(ErrorType.LEASE_LOST, f"this engine stood still for {gap:.0f} s")
        if self._contact.age > self._seconds:
            raise RankflowError(
                ErrorType.LEASE_LOST,
                f"the Temporal server has not answered for {self._contact.age:.0f} s",
            )
