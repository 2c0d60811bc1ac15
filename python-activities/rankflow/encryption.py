"""Encrypted payloads: the twin of ``src/encryption``, with the same file of keys.

AES-256-GCM over the whole payload, in the form of Temporal's samples for all languages: nonce,
ciphertext, tag. Off unless ``RANKFLOW_ENCRYPTION_KEY_FILE`` names a file of keys: one a line, the
one to encrypt with first; an id, a space, and 32 bytes in base64 or hex.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.converter import (
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    EncodingPayloadConverter,
    PayloadCodec,
    PayloadConverter,
)
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput
from temporalio.worker import Interceptor as WorkerInterceptor

from rankflow.contracts.errors import ErrorType, RankflowError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE = "RANKFLOW_ENCRYPTION_KEY_FILE"
KEY_BYTES = 32
LOOK_SECONDS = 5.0
"""How long a changed file may go unnoticed. A key that is not known is looked for at once."""

_NONCE_BYTES = 12
_ENCODING = b"binary/encrypted"
_CIPHER = b"AES/GCM/NoPadding"
_UNREADABLE = b"binary/rankflow-unreadable"
_ID_FORM = re.compile(r"[\w.-]{1,64}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=?")


class KeyFileError(ValueError):
    """The file of keys cannot be used; the message holds nothing of what stands in it."""


def parse_keys(text: str, file: str) -> dict[str, bytes]:
    """Keys by id, in the order of a text. Raises KeyFileError naming the line."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = _decoded(words[1]) if len(words) == 2 else None
        if key is None or not _ID_FORM.fullmatch(words[0]):
            raise KeyFileError(
                f"{file}, line {number}: this is no key with its id: an id, a space, and "
                f"{KEY_BYTES} bytes in base64 or hex"
            )
        if words[0] in keys:
            raise KeyFileError(f"{file}, line {number}: the id of this key stands there twice")
        keys[words[0]] = key
    if not keys:
        raise KeyFileError(f"{file} has no keys; make one: rankflow codec-server key FILE")
    return keys


def _decoded(value: str) -> bytes | None:
    if _HEX.fullmatch(value):
        return bytes.fromhex(value)
    try:
        return base64.b64decode(value.rstrip("=") + "=") if _BASE64.fullmatch(value) else None
    except binascii.Error:
        return None


def read_keys(file: Path) -> dict[str, bytes]:
    """Read a file of keys, which nobody but its user may read, as ssh has it with its keys.

    Raises KeyFileError with the reason and the way out.
    """
    try:
        status = file.stat()
        if status.st_uid == os.getuid() and status.st_mode & 0o077:
            raise KeyFileError(
                f"others may read the keys in {file} (its mode is "
                f"{stat.S_IMODE(status.st_mode):04o}): chmod 600 {file}"
            )
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise KeyFileError(
            f"the file of encryption keys {file}, which {KEY_FILE} names, cannot be read "
            f"({error.strerror}): copy it to this host with the permissions 0600"
        ) from error
    return parse_keys(text, str(file))


class KeyRing:
    """The keys of a file: the first encrypts, all decrypt.

    A file that changes is read again, so that keys are rotated under engines that run; one that is
    broken meanwhile leaves the keys as they were.
    """

    def __init__(self, file: Path) -> None:
        """Read the file. Raises KeyFileError."""
        self.file = file
        self._stamp = _stamp(file)
        self._keys = _ciphers(read_keys(file))
        self._looked = time.monotonic()

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the keys, that of the first one first."""
        return tuple(self._keys)

    def first(self) -> tuple[str, AESGCM]:
        """The key to encrypt with, and its id."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        return next(iter(self._keys.items()))

    def find(self, key_id: str) -> AESGCM | None:
        """A key by its id, also one that has just been added to the file."""
        if key_id not in self._keys:
            self._look()
        return self._keys.get(key_id)

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            stamp = _stamp(self.file)
            if stamp != self._stamp:
                self._keys = _ciphers(read_keys(self.file))
                self._stamp = stamp
        except (OSError, KeyFileError):
            return


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _ciphers(keys: Mapping[str, bytes]) -> dict[str, AESGCM]:
    try:
        # Not at the top: only who encrypts needs it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise KeyFileError(
            "encryption needs the Python package cryptography, which is not on this node"
        ) from error
    return {key_id: AESGCM(key) for key_id, key in keys.items()}


class EncryptionCodec(PayloadCodec):
    """Encrypts whole payloads, metadata included. Without keys it lets everything through.

    A payload that it cannot open becomes an :class:`Unreadable`: the SDK would try an activity
    whose input cannot be decoded again for ever.
    """

    def __init__(self, keys: KeyRing | None = None) -> None:
        self._keys = keys

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """Encrypt with the first key; see the base class."""
        if self._keys is None:
            return list(payloads)
        key_id, cipher = self._keys.first()
        return [_encrypted(payload, key_id, cipher) for payload in payloads]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """Decrypt what is encrypted; what is not comes from before, and is read as it is."""
        return [
            self._decrypted(payload) if payload.metadata.get("encoding") == _ENCODING else payload
            for payload in payloads
        ]

    def _decrypted(self, payload: Payload) -> Payload:
        key_id = payload.metadata.get("encryption-key-id", b"").decode(errors="replace")
        if self._keys is None:
            return _unreadable(
                f"this is encrypted (key {key_id}), and this process has no keys: "
                f"{KEY_FILE} is not set"
            )
        cipher = self._keys.find(key_id)
        if cipher is None:
            return _unreadable(
                f"this is encrypted with the key {key_id}, which is not in {self._keys.file} "
                f"(it has {', '.join(self._keys.ids)})"
            )
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, sealed, None))
        except Exception:
            return _unreadable(
                f"the key {key_id} does not open this: it was tampered with, or encrypted with "
                "another key of that id"
            )


def _encrypted(payload: Payload, key_id: str, cipher: AESGCM) -> Payload:
    nonce = os.urandom(_NONCE_BYTES)
    metadata = {
        "encoding": _ENCODING,
        "encryption-cipher": _CIPHER,
        "encryption-key-id": key_id.encode(),
    }
    sealed = cipher.encrypt(nonce, payload.SerializeToString(), None)
    return Payload(metadata=metadata, data=nonce + sealed)


def _unreadable(reason: str) -> Payload:
    return Payload(metadata={"encoding": _UNREADABLE}, data=reason.encode())


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that the keys of this process do not open."""

    reason: str


class UnreadableConverter(EncodingPayloadConverter):
    """Makes :class:`Unreadable` of what the codec could not open, whatever type is asked for."""

    @property
    def encoding(self) -> str:
        """See the base class."""
        return _UNREADABLE.decode()

    def to_payload(self, value: Any) -> Payload | None:
        """Nothing is ever written like this."""
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """See the base class."""
        return Unreadable(payload.data.decode())


class RefuseUnreadable(ClientInterceptor, WorkerInterceptor):
    """Fails activities whose input cannot be read for good, with one clear error."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See the base class."""
        return _Refusing(next)


class _Refusing(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        for value in input.args:
            if isinstance(value, Unreadable):
                error = RankflowError(ErrorType.KEY_MISMATCH, value.reason)
                raise error.as_application_error()
        return await self.next.execute_activity(input)


class EncodedFailures(DefaultFailureConverterWithEncodedAttributes):
    """Messages and stacks of errors go into payloads, which are encrypted.

    That a key is not there must be read by who does not have this process's key: it holds ids of
    keys and no more.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """See the base class."""
        if isinstance(exception, ApplicationError) and exception.type == ErrorType.KEY_MISMATCH:
            DefaultFailureConverter().to_failure(exception, payload_converter, failure)
        else:
            super().to_failure(exception, payload_converter, failure)


def encryption() -> tuple[EncryptionCodec, type[DefaultFailureConverter]]:
    """The codec and the converter of errors that the environment asks for.

    Errors have their messages and stacks in the clear unless payloads are encrypted. Raises
    KeyFileError when the file of keys cannot be used.
    """
    file = os.environ.get(KEY_FILE)
    if not file:
        return EncryptionCodec(), DefaultFailureConverter
    keys = KeyRing(Path(file).absolute())
    return EncryptionCodec(keys), EncodedFailures
