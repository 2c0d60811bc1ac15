"""A real S3 server for whatever test asks for a bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rankflow.store.open import open_unchecked
from tests.bucket_server import BucketServer, bucket_server


@pytest.fixture(scope="session")
def server() -> Iterator[BucketServer]:
    """One S3 server for all tests of a session; each takes buckets of its own."""
    with bucket_server() as running:
        yield running


@pytest.fixture
def s3(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an empty bucket, with the server's settings in the environment. No faults yet."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{secrets.token_hex(4)}"
    server.make_bucket(name)
    open_unchecked.cache_clear()
    server.proxy.requests.clear()
    yield f"s3://{name}/some/prefix"
    server.proxy.faults.clear()
    open_unchecked.cache_clear()
