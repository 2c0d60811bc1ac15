"""Clients and workers over TLS: a real server behind a front, certificates made here."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from temporalio.worker import Worker

from rankflow.connection import connect
from tests.asking import Asking, greet
from tests.certificates import Pair
from tests.temporal import temporal_server

KEY = "key-canary-c0ffee"


@asynccontextmanager
async def tls_front(target: str, server: Pair, clients: Pair | None = None) -> AsyncGenerator[str]:
    """TLS that wants to see a certificate of ``clients``, and passes on what is in it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.cert_file, server.key_file)
    context.set_alpn_protocols(["h2"])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.cert_file)
    host, _, port = target.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside_reader, inside_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pipe(reader, inside_writer), _pipe(inside_reader, writer))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"localhost:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def key_front(target: str, server: Pair, key: str, seen: set[str]) -> AsyncGenerator[str]:
    """TLS that lets only calls with an API key through."""

    class Through(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            metadata = dict(handler_call_details.invocation_metadata or ())
            authorization = str(metadata.get("authorization", ""))
            method = handler_call_details.method
            seen.add(authorization)

            async def call(request: bytes, context: Any) -> bytes:
                if authorization != f"Bearer {key}":
                    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
                try:
                    # Without a serializer, bytes go through as they are.
                    ask = cast("Callable[[bytes], Awaitable[bytes]]", channel.unary_unary(method))
                    return await ask(request)
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details() or "")
                    raise

            return grpc.unary_unary_rpc_method_handler(call)

    credentials = grpc.ssl_server_credentials([(server.key_pem, server.cert_pem)])
    async with grpc.aio.insecure_channel(target) as channel:
        front = grpc.aio.server()
        front.add_generic_rpc_handlers((Through(),))
        port = front.add_secure_port("127.0.0.1:0", credentials)
        await front.start()
        try:
            yield f"localhost:{port}"
        finally:
            await front.stop(None)


class Setting:
    """Sets Temporal's own variables, and no others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.patch = monkeypatch
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(folder / "none.toml"))

    def __call__(self, address: str, **settings: object) -> None:
        self.patch.setenv("TEMPORAL_ADDRESS", address)
        for name in ("TLS", "SERVER_CA_CERT_PATH", "CLIENT_CERT_PATH", "CLIENT_KEY_PATH"):
            self.patch.delenv(f"TEMPORAL_TLS_{name}", raising=False)
        for name in ("TEMPORAL_TLS", "TEMPORAL_API_KEY", "TEMPORAL_TLS_SERVER_NAME"):
            self.patch.delenv(name, raising=False)
        for name, value in settings.items():
            self.patch.setenv(f"TEMPORAL_{name}", str(value))


async def _refusal() -> str:
    with pytest.raises(RuntimeError) as caught:
        await connect()
    return str(caught.value)


async def test_mutual_tls_lets_in_who_has_a_certificate_and_tells_the_others_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, clients = Pair(tmp_path, "authority"), Pair(tmp_path, "clients")
    client = Pair(tmp_path, "client", clients)
    stranger = Pair(tmp_path, "stranger", authority)
    setting = Setting(monkeypatch, tmp_path)
    ca = {"TLS_SERVER_CA_CERT_PATH": authority.cert_file}
    mine = {**ca, "TLS_CLIENT_CERT_PATH": client.cert_file, "TLS_CLIENT_KEY_PATH": client.key_file}
    async with temporal_server() as server:
        target = server.client.service_client.config.target_host
        good = Pair(tmp_path, "server", authority)
        async with tls_front(target, good, clients) as front:
            setting(front, **mine)
            connected = await connect()
            async with Worker(connected, task_queue="tls", workflows=[Asking], activities=[greet]):
                answer = await connected.execute_workflow(
                    Asking.run, args=["you", "tls"], id="tls", task_queue="tls"
                )
                assert answer == "hello you"

            setting(front, **ca)
            assert "asks for a client certificate" in await _refusal()
            setting(
                front,
                **ca,
                TLS_CLIENT_CERT_PATH=stranger.cert_file,
                TLS_CLIENT_KEY_PATH=stranger.key_file,
            )
            assert "refuses the client certificate" in await _refusal()
            setting(front, TLS="true")
            assert "TEMPORAL_TLS_SERVER_CA_CERT_PATH" in await _refusal()
            setting(front)
            assert "speaks TLS, and no TLS is configured" in await _refusal()
            setting(front, **{**mine, "TLS_CLIENT_KEY_PATH": tmp_path / "none.key"})
            assert "none.key" in await _refusal()
        setting(target, TLS="true")
        assert "does not speak TLS" in await _refusal()
        async with tls_front(target, Pair(tmp_path, "old", authority, days=-1), clients) as front:
            setting(front, **mine)
            assert "has expired" in await _refusal()
        other = Pair(tmp_path, "named", authority, host="temporal.internal")
        async with tls_front(target, other, clients) as front:
            setting(front, **mine)
            assert "is not for the name localhost" in await _refusal()
            setting(front, **mine, TLS_SERVER_NAME="temporal.internal")
            await connect()


async def test_an_api_key_goes_as_a_bearer_over_tls_and_a_wrong_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Pair(tmp_path, "authority")
    setting = Setting(monkeypatch, tmp_path)
    ca = {"TLS_SERVER_CA_CERT_PATH": authority.cert_file}
    seen: set[str] = set()
    async with temporal_server() as server:
        target = server.client.service_client.config.target_host
        async with key_front(target, Pair(tmp_path, "server", authority), KEY, seen) as front:
            setting(front, **ca, API_KEY=KEY)
            await connect()
            assert seen == {f"Bearer {KEY}"}
            setting(front, **ca, API_KEY="wrong-canary")
            refusal = await _refusal()
            assert "refuses the API key" in refusal
            assert "wrong-canary" not in refusal
            setting(front, **ca)
            assert "set TEMPORAL_API_KEY" in await _refusal()
