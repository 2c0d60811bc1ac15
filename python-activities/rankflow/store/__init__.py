"""The store: the folder or bucket that holds plans, attempts, commits and outputs."""

from rankflow.store.base import Appender, MissingKey, Store, Writer
from rankflow.store.open import open_store

__all__ = ["Appender", "MissingKey", "Store", "Writer", "open_store"]
