"""The stores that every promise is checked on: a folder, and a bucket in memory."""

from pathlib import Path

import pytest

from rankflow.store import Store
from rankflow.store.local import LocalStore


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    from obstore.store import MemoryStore

    from rankflow.store.object import BucketStore

    return BucketStore("memory://", MemoryStore())
