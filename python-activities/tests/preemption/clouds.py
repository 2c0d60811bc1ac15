"""What the metadata services of the clouds answer, as their documentation has it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from tests.preemption.metadata import Question, Reply


def iso(seconds: float) -> str:
    """The time in ``seconds`` from now, as AWS writes it."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class AwsService:
    """Metadata service of EC2, version 2 only: every question but the first needs its token."""

    def __init__(self) -> None:
        self.token = "AQAEAtoken=="
        self.action: str | None = None

    def __call__(self, asked: Question) -> Reply:
        """Answer one question."""
        if asked.path == "/latest/api/token":
            ttl = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            put = asked.method == "PUT" and 1 <= int(ttl or 0) <= 21600
            return Reply(200, self.token) if put else Reply(400)
        if asked.headers.get("x-aws-ec2-metadata-token") != self.token:
            return Reply(401, "Unauthorized")
        if asked.path == "/latest/meta-data/events/recommendations/rebalance":
            return Reply(200, json.dumps({"noticeTime": iso(0)}))
        if asked.path == "/latest/meta-data/spot/instance-action" and self.action is not None:
            return Reply(200, self.action)
        return Reply(404, "Not Found")


class GcpService:
    """Metadata server of Compute Engine."""

    def __init__(self) -> None:
        self.preempted = "FALSE"

    def __call__(self, asked: Question) -> Reply:
        """Answer one question."""
        flavor = {"Metadata-Flavor": "Google"}
        if asked.headers.get("metadata-flavor") != "Google":
            return Reply(403, "Missing Metadata-Flavor:Google header.", flavor)
        if asked.path == "/computeMetadata/v1/instance/id":
            return Reply(200, "4520031799277581759", flavor)
        if asked.path == "/computeMetadata/v1/instance/preempted":
            return Reply(200, self.preempted, flavor)
        return Reply(404, "", flavor)


class AzureService:
    """Instance metadata and scheduled events of one machine of a scale set."""

    def __init__(self) -> None:
        self.events: Any = []

    def add(
        self, kind: str, machines: list[str], before: float | None, status: str = "Scheduled"
    ) -> None:
        """List one more event, ``before`` seconds from now; None: it has started."""
        moment = datetime.fromtimestamp(time.time() + (before or 0), UTC)
        self.events.append(
            {
                "EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123",
                "EventType": kind,
                "ResourceType": "VirtualMachine",
                "Resources": machines,
                "EventStatus": status,
                "NotBefore": "" if before is None else format_datetime(moment, usegmt=True),
                "Description": "",
                "EventSource": "Platform",
            }
        )

    def __call__(self, asked: Question) -> Reply:
        """Answer one question."""
        if asked.headers.get("metadata") != "true":
            return Reply(400, "Bad request. Required metadata header not specified")
        if asked.path.startswith("/metadata/instance/compute/name?"):
            return Reply(200, "spot_3")
        if asked.path == "/metadata/scheduledevents?api-version=2020-07-01":
            return Reply(200, json.dumps({"DocumentIncarnation": 1, "Events": self.events}))
        return Reply(404)
