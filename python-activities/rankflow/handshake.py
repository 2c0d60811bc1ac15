"""Why a connection to Temporal failed: the handshake is tried again to see what is wrong with it.

The SDK's own words are those of its libraries. The twin of ``src/temporal/problem.ts``.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import tempfile
from pathlib import Path

from temporalio.service import TLSConfig

_HANDSHAKE_SECONDS = 3.0
_FIRST_WORD_SECONDS = 1.0
"""A server speaks first over HTTP/2, or says that it refuses the certificate: both at once."""

_EXPIRED, _NOT_YET = 10, 9
_WRONG_NAME = (62, 64)
_UNKNOWN_CA = (2, 18, 19, 20, 21)
"""OpenSSL's numbers of what is wrong with a certificate."""

_REFUSED = re.compile(
    r"unauthenticated|permission ?denied|valid authentication credentials"
    r"|caller does not have permission",
    re.IGNORECASE,
)
"""Names of gRPC's codes, or what the SDK's library says of them."""

_CLIENT_REFUSED = re.compile(
    r"alert (certificate|bad certificate|unknown ca|unsupported certificate|access denied"
    r"|handshake failure)|certificate.required",
    re.IGNORECASE,
)


def connection_problem(
    address: str, tls: bool | TLSConfig, has_key: bool, error: Exception
) -> str | None:
    """What is wrong and what helps, in one sentence or two; None when nothing is known.

    Args:
        address: ``host:port``.
        has_key: whether an API key was given.
        error: what the SDK said.
    """
    if _REFUSED.search(str(error)):
        if has_key:
            return (
                f"Temporal at {address} refuses the API key: check TEMPORAL_API_KEY (or api_key of "
                "the profile)"
            )
        return f"Temporal at {address} asks who this is: set TEMPORAL_API_KEY"
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit():
        return None
    given = tls if isinstance(tls, TLSConfig) else TLSConfig()
    name = given.domain or host
    try:
        context = _context(given) if tls else _any_context()
    except (ssl.SSLError, OSError) as broken:
        return (
            f"the certificates for Temporal cannot be used ({broken}): check that the "
            "TEMPORAL_TLS_... files are in PEM form, and that the key is that of the certificate"
        )
    try:
        _shake(host, int(port), name, context)
    except OSError as problem:
        if not tls:
            return _NO_TLS.format(address=address) if _refuses_client(problem) else None
        return _explained(address, name, problem, given.client_cert is not None)
    return None if tls else _NO_TLS.format(address=address)


_NO_TLS = (
    "Temporal at {address} speaks TLS, and no TLS is configured: set TEMPORAL_TLS=true, or the "
    "TEMPORAL_TLS_... variables for its certificates"
)


def _explained(address: str, name: str, problem: OSError, has_certificate: bool) -> str | None:
    server = f"the certificate of Temporal at {address}"
    if isinstance(problem, ssl.SSLCertVerificationError):
        match problem.verify_code:
            case code if code == _EXPIRED:
                return f"{server} has expired: have it renewed, and check the clock of this host"
            case code if code == _NOT_YET:
                return f"{server} is not valid yet: check the clock of this host"
            case code if code in _WRONG_NAME:
                return f"{server} is not for the name {name}: set TEMPORAL_TLS_SERVER_NAME"
            case code if code in _UNKNOWN_CA:
                return (
                    f"{server} is from an authority that is not known here: name its certificate "
                    "with TEMPORAL_TLS_SERVER_CA_CERT_PATH"
                )
            case _:
                return f"{server} is refused: {problem.verify_message}"
    if _refuses_client(problem):
        if has_certificate:
            return (
                f"Temporal at {address} refuses the client certificate: check that "
                "TEMPORAL_TLS_CLIENT_CERT_PATH has not expired, and is from an authority that the "
                "server knows"
            )
        return (
            f"Temporal at {address} asks for a client certificate: set "
            "TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH"
        )
    if re.search(r"wrong.version|packet.length|http.request|record.layer", str(problem), re.I):
        return (
            f"Temporal at {address} does not speak TLS: unset TEMPORAL_TLS, TEMPORAL_TLS_... and "
            "TEMPORAL_API_KEY for this server (TEMPORAL_TLS=false)"
        )
    return None


class _HungUpError(OSError):
    """The server closed the connection after the handshake: it does not like the certificate."""


def _refuses_client(problem: OSError) -> bool:
    return isinstance(problem, _HungUpError) or bool(_CLIENT_REFUSED.search(str(problem)))


def _shake(host: str, port: int, name: str, context: ssl.SSLContext) -> None:
    """Connect and wait for the first word; raises what goes wrong."""
    with (
        socket.create_connection((host, port), timeout=_HANDSHAKE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        secure.settimeout(_FIRST_WORD_SECONDS)
        try:
            if not secure.recv(1):
                raise _HungUpError("the connection was closed after the handshake")
        except TimeoutError:
            return
        except ConnectionResetError as error:
            raise _HungUpError("the connection was closed after the handshake") from error


def _context(tls: TLSConfig) -> ssl.SSLContext:
    ca = tls.server_root_ca_cert
    context = ssl.create_default_context(cadata=ca.decode() if ca is not None else None)
    context.set_alpn_protocols(["h2"])
    if tls.client_cert is not None and tls.client_private_key is not None:
        # Python reads them from files only.
        with tempfile.TemporaryDirectory(prefix="rankflow-tls-") as folder:
            names: list[str] = []
            for file, data in (("cert", tls.client_cert), ("key", tls.client_private_key)):
                path = Path(folder) / file
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as out:
                    out.write(data)
                names.append(str(path))
            context.load_cert_chain(*names)
    return context


def _any_context() -> ssl.SSLContext:
    """For a server whose certificate does not matter: only whether it speaks TLS at all."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
