"""The Temporal client of every Python process, and JSON as the TypeScript side expects it.

Settings are Temporal's own (``TEMPORAL_ADDRESS``, ``TEMPORAL_NAMESPACE``, ``TEMPORAL_API_KEY``,
TLS, ``temporal.toml`` profiles). Only the address and namespace ever travel to another process:
keys and certificates are read from the environment or profile of the node that uses them, and so
are the keys that payloads are encrypted with.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)
from temporalio.envconfig import ClientConfig, ClientConnectConfig

from rankflow.encryption import KeyFileError, RefuseUnreadable, UnreadableConverter, encryption
from rankflow.handshake import connection_problem
from rankflow.tracing import interceptors

DEFAULT_ADDRESS = "localhost:7233"
DEFAULT_NAMESPACE = "default"


class _ContractJsonConverter(PydanticJSONPlainPayloadConverter):
    """Models by alias (camelCase), without absent fields: zod's ``optional`` refuses null."""

    def to_payload(self, value: Any) -> Payload | None:
        """Encode one value; see the base class."""
        data = (
            value.model_dump_json(by_alias=True, exclude_none=True).encode()
            if isinstance(value, BaseModel)
            else to_json(value, by_alias=True)
        )
        return Payload(metadata={"encoding": self.encoding.encode()}, data=data)


class ContractPayloadConverter(CompositePayloadConverter):
    """Temporal's default converters with JSON done by :class:`_ContractJsonConverter`."""

    def __init__(self) -> None:
        converters = DefaultPayloadConverter.default_encoding_payload_converters
        super().__init__(
            *(
                _ContractJsonConverter() if isinstance(c, JSONPlainPayloadConverter) else c
                for c in converters
            ),
            UnreadableConverter(),
        )


def contract_converter() -> DataConverter:
    """How values become payloads here. Raises KeyFileError when its keys cannot be read."""
    codec, failures = encryption()
    return DataConverter(
        payload_converter_class=ContractPayloadConverter,
        payload_codec=codec,
        failure_converter_class=failures,
    )


@dataclass(frozen=True)
class TemporalTarget:
    """Which Temporal server and namespace; carries no credentials."""

    address: str
    namespace: str


def temporal_target() -> TemporalTarget:
    """The server and namespace that this process's environment and profile name."""
    config = _settings()
    return TemporalTarget(
        address=config.get("target_host") or DEFAULT_ADDRESS,
        namespace=config.get("namespace") or DEFAULT_NAMESPACE,
    )


async def connect(target: TemporalTarget | None = None) -> Client:
    """Connect with this node's credentials, to ``target`` or to what the environment names.

    Raises ``RuntimeError`` when the server cannot be reached or refuses this node, or when a
    certificate or a file of keys is not there (yet): worth another try.
    """
    config = _settings()
    where = target or temporal_target()
    config["target_host"] = where.address
    config["namespace"] = where.namespace
    try:
        converter = contract_converter()
    except KeyFileError as error:
        raise RuntimeError(str(error)) from error
    # Innermost, next to the activity: the others pass on what they do not look into.
    both = [*interceptors(), RefuseUnreadable()]
    try:
        return await Client.connect(**config, data_converter=converter, interceptors=both)
    except RuntimeError as error:
        tls = config.get("tls") or (config.get("api_key") is not None)
        has_key = config.get("api_key") is not None
        problem = await asyncio.to_thread(connection_problem, where.address, tls, has_key, error)
        if problem is None:
            raise
        raise RuntimeError(problem) from error


def _settings() -> ClientConnectConfig:
    """Temporal's own settings. Raises RuntimeError naming what is wrong with them."""
    try:
        return ClientConfig.load_client_connect_config()
    except Exception as error:
        # Further lines quote the file, which may hold a key.
        reason = str(error).partition("\n")[0]
        raise RuntimeError(f"Temporal's settings cannot be read: {reason}") from None
