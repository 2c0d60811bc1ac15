"""The stores that promises are checked on: a folder, a bucket in memory, a real S3 server."""

from pathlib import Path

import pytest

from rankflow.store import Store, open_store
from rankflow.store.local import LocalStore


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3"))
    from obstore.store import MemoryStore

    from rankflow.store.object import BucketStore

    return BucketStore("memory://", MemoryStore())
