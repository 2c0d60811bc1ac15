"""Who gives notice that a node is going to be taken away, one class for each.

``poll`` blocks for seconds at most (run it in a thread), returns a notice, or None when there is
none, and raises Trouble when the answer is not one. A notice is never taken back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

from rankflow.preemption.http import SECONDS, Reply, Trouble, ask

Kind = Literal["aws", "gcp", "azure", "file", "url", "ray"]

LINK_LOCAL = "http://169.254.169.254"
"""Where all three clouds answer questions of a machine about itself."""
NOTICE_SECONDS = 30.0
"""Notice where none is stated: what GCP and Azure give, and Kubernetes before it kills."""


@dataclass(frozen=True)
class Notice:
    """The node goes at ``deadline`` (seconds since the epoch)."""

    source: Kind
    deadline: float


class Source(Protocol):
    """One way to learn of a preemption."""

    kind: ClassVar[Kind]
    seconds: ClassVar[float]
    """Between two polls."""

    def poll(self) -> Notice | None:
        """A notice, or None. Raises Trouble."""
        ...


class CloudSource(Source, Protocol):
    """A cloud's metadata service."""

    def answers(self) -> bool:
        """Whether this machine is one of this cloud's; never raises, takes a second at most."""
        ...


class Aws:
    """EC2 spot: ``spot/instance-action`` of the metadata service, version 2 (with a token).

    It is there two minutes before the instance is stopped or terminated, and at once when it
    hibernates. A rebalance recommendation is no notice: most instances that get one live on.
    """

    kind: ClassVar[Kind] = "aws"
    # What AWS recommends: it leaves 115 of 120 seconds.
    seconds: ClassVar[float] = 5.0

    # The longest that the service allows; one that is refused earlier is replaced.
    _TOKEN_SECONDS = 21_600

    def __init__(self, endpoint: str = LINK_LOCAL) -> None:
        self._base = f"{endpoint.rstrip('/')}/latest"
        self._token: str | None = None

    def answers(self) -> bool:
        """See the protocol."""
        try:
            self._token = self._new_token()
        except Trouble:
            return False
        return True

    def poll(self) -> Notice | None:
        """See the protocol."""
        reply = self._get("meta-data/spot/instance-action")
        if reply.status == 401:
            self._token = None
            reply = self._get("meta-data/spot/instance-action")
        if reply.status == 404:
            return None
        action = _object(reply)
        if action.get("action") not in ("terminate", "stop", "hibernate"):
            raise Trouble("instance-action names no action")
        return Notice(self.kind, _iso(action.get("time")))

    def _get(self, path: str) -> Reply:
        self._token = self._token or self._new_token()
        return ask(f"{self._base}/{path}", headers={"X-aws-ec2-metadata-token": self._token})

    def _new_token(self) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(self._TOKEN_SECONDS)}
        reply = ask(f"{self._base}/api/token", method="PUT", headers=headers)
        # Elsewhere anything may answer at this address: a token is one word.
        if reply.status != 200 or not reply.body.isascii() or len(reply.body.split()) != 1:
            raise Trouble(f"no token, status {reply.status}")
        return reply.body


class Gcp:
    """Compute Engine spot: ``instance/preempted`` of the metadata server turns TRUE.

    The guest is told to shut down at the same moment, and stopped 30 s later.
    """

    kind: ClassVar[Kind] = "gcp"
    # Of 30 seconds each one counts; the server is on the same host.
    seconds: ClassVar[float] = 1.0

    _HEADERS: ClassVar[dict[str, str]] = {"Metadata-Flavor": "Google"}

    def __init__(self, endpoint: str = LINK_LOCAL) -> None:
        self._base = f"{endpoint.rstrip('/')}/computeMetadata/v1"

    def answers(self) -> bool:
        """See the protocol."""
        try:
            reply = ask(f"{self._base}/instance/id", headers=self._HEADERS)
        except Trouble:
            return False
        return reply.status == 200 and reply.headers.get("metadata-flavor") == "Google"

    def poll(self) -> Notice | None:
        """See the protocol."""
        reply = ask(f"{self._base}/instance/preempted", headers=self._HEADERS)
        word = reply.body.strip()
        if reply.status != 200 or word not in ("TRUE", "FALSE"):
            raise Trouble(f"preempted is neither TRUE nor FALSE, status {reply.status}")
        return Notice(self.kind, time.time() + NOTICE_SECONDS) if word == "TRUE" else None


class Azure:
    """Azure spot: an event of type Preempt for this machine among the scheduled events.

    It is there 30 s before, at least. The list also holds events of other machines of the same
    scale set or availability set.
    """

    kind: ClassVar[Kind] = "azure"
    # What Microsoft recommends.
    seconds: ClassVar[float] = 1.0

    _HEADERS: ClassVar[dict[str, str]] = {"Metadata": "true"}
    # The first question turns the service on for the machine, which takes up to two minutes.
    _FIRST_SECONDS = 120.0

    def __init__(self, endpoint: str = LINK_LOCAL) -> None:
        self._base = f"{endpoint.rstrip('/')}/metadata"
        self._machine: str | None = None
        self._asked = False

    def answers(self) -> bool:
        """See the protocol."""
        try:
            self._machine = self._name()
        except Trouble:
            return False
        return True

    def poll(self) -> Notice | None:
        """See the protocol."""
        self._machine = self._machine or self._name()
        reply = ask(
            f"{self._base}/scheduledevents?api-version=2020-07-01",
            headers=self._HEADERS,
            seconds=SECONDS if self._asked else self._FIRST_SECONDS,
        )
        events = _object(reply).get("Events")
        if not isinstance(events, list):
            raise Trouble("there is no list of events")
        self._asked = True
        own = [event for event in cast("list[Any]", events) if self._is_ours(event)]
        return min((self._notice(event) for event in own), key=lambda n: n.deadline, default=None)

    def _is_ours(self, event: Any) -> bool:
        if not isinstance(event, dict):
            raise Trouble("an event is no object")
        fields = cast("dict[str, Any]", event)
        resources = fields.get("Resources")
        return (
            fields.get("EventType") == "Preempt"
            and isinstance(resources, list)
            and self._machine in resources
        )

    def _notice(self, event: dict[str, Any]) -> Notice:
        # Empty once the event has started: the machine goes at any moment.
        before = event.get("NotBefore")
        return Notice(self.kind, _http_date(before) if before else time.time())

    def _name(self) -> str:
        reply = ask(
            f"{self._base}/instance/compute/name?api-version=2021-02-01&format=text",
            headers=self._HEADERS,
        )
        if reply.status != 200 or len(reply.body.split()) != 1:
            raise Trouble(f"the machine has no name, status {reply.status}")
        return reply.body


class File:
    """A file whose presence is the notice.

    It may hold ``{"deadline": …}``: an ISO 8601 time, or seconds counted from when the file was
    written.
    """

    kind: ClassVar[Kind] = "file"
    # A look at one file costs nothing.
    seconds: ClassVar[float] = 1.0

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def poll(self) -> Notice | None:
        """See the protocol."""
        try:
            written = self._path.stat().st_mtime
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Trouble(f"{self._path}: {error.strerror}") from error
        try:
            return Notice(self.kind, _stated(text, written))
        except Trouble:
            # Perhaps it is just being written; the next look takes it as it is.
            if time.time() - written < self.seconds:
                return None
            return Notice(self.kind, written + NOTICE_SECONDS)


class Url:
    """An address that answers 200 when there is notice; its body may state the deadline as File's.

    Seconds count from when the answer was first seen.
    """

    kind: ClassVar[Kind] = "url"
    # Like the clouds that give 30 seconds.
    seconds: ClassVar[float] = 1.0

    def __init__(self, url: str) -> None:
        self._url = url

    def poll(self) -> Notice | None:
        """See the protocol."""
        reply = ask(self._url)
        if reply.status != 200:
            if reply.status >= 500:
                raise Trouble(f"status {reply.status}")
            return None
        now = time.time()
        try:
            return Notice(self.kind, _stated(reply.body, now))
        except Trouble:
            return Notice(self.kind, now + NOTICE_SECONDS)


class RayDrain:
    """Ray's own list of nodes that are drained: ``ray drain-node``, SIGTERM, an autoscaler."""

    kind: ClassVar[Kind] = "ray"
    # The list comes from the head in a millisecond.
    seconds: ClassVar[float] = 1.0

    # A drain without a deadline waits for the work, and a batch may take as long as this.
    _PATIENCE_SECONDS = 6 * 3600.0

    def __init__(self, node_id: str, draining: Callable[[], dict[str, int]]) -> None:
        """``draining``: node ids with their deadlines, epoch milliseconds or 0."""
        self._node_id = node_id
        self._draining = draining
        self._open_ended: float | None = None

    def poll(self) -> Notice | None:
        """See the protocol."""
        try:
            deadline = self._draining().get(self._node_id)
        except Exception as error:
            raise Trouble(f"the head does not answer: {type(error).__name__}") from error
        if deadline is None:
            return None
        if deadline > 0:
            return Notice(self.kind, deadline / 1000)
        self._open_ended = self._open_ended or time.time() + self._PATIENCE_SECONDS
        return Notice(self.kind, self._open_ended)


def _object(reply: Reply) -> dict[str, Any]:
    if reply.status != 200:
        raise Trouble(f"status {reply.status}")
    return _parsed(reply.body)


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise Trouble("the answer is not JSON") from None
    if not isinstance(value, dict):
        raise Trouble("the answer is no JSON object")
    return cast("dict[str, Any]", value)


def _stated(text: str, since: float) -> float:
    """The deadline in ``{"deadline": …}``; seconds count from ``since``."""
    value = _parsed(text).get("deadline")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return since + value
    return _iso(value)


def _iso(value: Any) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Trouble("the time is not ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _http_date(value: Any) -> float:
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        raise Trouble("the time is no HTTP date") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
