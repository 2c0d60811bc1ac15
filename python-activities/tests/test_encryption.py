"""Payloads on a real server; what the other language reads is in ``test/unit/encryption``."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

from rankflow.connection import connect
from rankflow.contracts.errors import ErrorType
from rankflow.encryption import (
    KEY_FILE,
    EncryptionCodec,
    KeyFileError,
    KeyRing,
    Unreadable,
    UnreadableConverter,
    read_keys,
)
from tests.asking import Asking, greet
from tests.temporal import temporal_server

CANARY = "canary-9f3e71"
OLD = f"old {'ab' * 32}"
NEW = f"new {'cd' * 32}"


def key_file(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    """A file of keys that only its user may read."""
    file = folder / f"keys-{uuid.uuid4()}"
    file.write_text("\n".join(("# keys", *lines)) + "\n")
    file.chmod(mode)
    return file


async def reason(codec: EncryptionCodec, payload: Payload) -> str:
    """Why a codec cannot open a payload."""
    (opened,) = await codec.decode([payload])
    value = UnreadableConverter().from_payload(opened, str)
    assert isinstance(value, Unreadable)
    return value.reason


async def test_the_first_key_encrypts_and_each_decrypts(tmp_path: Path) -> None:
    plain = Payload(metadata={"encoding": b"json/plain"}, data=CANARY.encode())
    before = EncryptionCodec(KeyRing(key_file(tmp_path, OLD)))
    file = key_file(tmp_path, NEW, OLD)
    codec = EncryptionCodec(KeyRing(file))
    (sealed,) = await before.encode([plain])
    assert CANARY.encode() not in sealed.SerializeToString()
    assert await codec.decode([sealed]) == [plain]
    (newer,) = await codec.encode([plain])
    assert newer.metadata["encryption-key-id"] == b"new"
    assert "the key new, which is not in" in await reason(before, newer)
    assert await codec.decode([plain]) == [plain]
    assert "RANKFLOW_ENCRYPTION_KEY_FILE is not set" in await reason(EncryptionCodec(), newer)
    for at in range(len(newer.data)):
        changed = bytearray(newer.data)
        changed[at] ^= 1
        broken = Payload(metadata=newer.metadata, data=bytes(changed))
        assert "tampered" in await reason(codec, broken)


async def test_a_key_that_is_added_to_the_file_is_known_without_a_restart(tmp_path: Path) -> None:
    file = key_file(tmp_path, OLD)
    codec = EncryptionCodec(KeyRing(file))
    (sealed,) = await EncryptionCodec(KeyRing(key_file(tmp_path, NEW))).encode([Payload()])
    await reason(codec, sealed)
    file.write_text(f"{OLD}\n{NEW}\n")
    assert await codec.decode([sealed]) == [Payload()]


def test_a_file_that_others_may_read_or_that_is_wrong_is_refused(tmp_path: Path) -> None:
    for mode in (0o640, 0o604, 0o660):
        with pytest.raises(KeyFileError, match=f"its mode is {mode:04o}.*chmod 600"):
            read_keys(key_file(tmp_path, NEW, mode=mode))
    assert list(read_keys(key_file(tmp_path, NEW, mode=0o400))) == ["new"]
    with pytest.raises(KeyFileError, match="No such file"):
        read_keys(tmp_path / "none")
    with pytest.raises(KeyFileError, match="has no keys"):
        read_keys(key_file(tmp_path))
    secret = "c4a1" * 15
    for line in (f"k {secret}", secret, f"k! {'ab' * 32}", f"k {'ab' * 32} more", OLD):
        with pytest.raises(KeyFileError, match="line 3") as caught:
            read_keys(key_file(tmp_path, OLD, line))
        assert secret not in str(caught.value)


async def test_nothing_stands_in_a_history_in_the_clear_and_another_key_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    async with temporal_server() as server:
        monkeypatch.setenv("TEMPORAL_ADDRESS", server.client.service_client.config.target_host)

        async def client(*lines: str) -> Client:
            monkeypatch.setenv(KEY_FILE, str(key_file(tmp_path, *lines)))
            return await connect()

        ours = await client(NEW)
        theirs = await client(OLD)
        monkeypatch.delenv(KEY_FILE)
        nobodys = await connect()
        async with (
            Worker(ours, task_queue="asking", workflows=[Asking]),
            Worker(ours, task_queue="ours", activities=[greet]),
            Worker(theirs, task_queue="theirs", activities=[greet]),
            Worker(nobodys, task_queue="nobodys", activities=[greet]),
        ):

            async def ask(name: str, queue: str) -> str:
                return await ours.execute_workflow(
                    Asking.run,
                    args=[name, queue],
                    id=f"{queue}-{name[:3]}",
                    task_queue="asking",
                    memo={"what": name},
                )

            assert await ask(CANARY, "ours") == f"hello {CANARY}"
            with pytest.raises(WorkflowFailureError) as failed:
                await ask(f"bad {CANARY}", "ours")
            assert CANARY in _innermost(failed.value).message
            for queue, why in (("theirs", "the key new, which is not in"), ("nobodys", KEY_FILE)):
                with pytest.raises(WorkflowFailureError) as failed:
                    await ask(CANARY, queue)
                error = _innermost(failed.value)
                assert error.type == ErrorType.KEY_MISMATCH.value
                assert error.non_retryable
                assert why in error.message
        for workflow in ("ours-can", "ours-bad", "theirs-can", "nobodys-can"):
            history = await server.client.get_workflow_handle(workflow).fetch_history()
            raw = b"".join(event.SerializeToString() for event in history.events)
            assert CANARY.encode() not in raw
            assert b"binary/encrypted" in raw


def _innermost(error: WorkflowFailureError) -> ApplicationError:
    cause = error.cause
    assert isinstance(cause, ActivityError)
    assert isinstance(cause.cause, ApplicationError)
    return cause.cause
