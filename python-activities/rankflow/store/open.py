"""Opening a store by its address."""

from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlparse

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.roots import check_allowed
from rankflow.store.base import Store
from rankflow.store.local import LocalStore


def open_store(root: str) -> Store:
    """Open a store. Opening does not touch it: a missing bucket shows at the first call.

    Args:
        root: an absolute path, a ``file://`` address, or what ``obstore`` reads (``s3://``, …).

    Raises:
        RankflowError: UNSUPPORTED_INPUT when the address is none of these; PATH_REFUSED when it
            is below no allowed root.
    """
    check_allowed(root)
    return open_unchecked(root)


@lru_cache(maxsize=32)
def open_unchecked(root: str) -> Store:
    """The store of an address that is known to be allowed; the same one for each call."""
    address = urlparse(root)
    if "://" not in root or address.scheme == "file":
        path = Path(unquote(address.path) if address.scheme == "file" else root)
        if not path.is_absolute() or ".." in path.parts:
            raise RankflowError(
                ErrorType.UNSUPPORTED_INPUT,
                f"the store {root!r} is not an absolute path without '..' and not a bucket address",
            )
        return LocalStore(path)
    # Not at the top: a worker with a local store needs no cloud client.
    from obstore.store import from_url

    from rankflow.store.object import RETRIES, BucketStore

    try:
        return BucketStore(root, from_url(root, retry_config=RETRIES))
    except Exception as error:
        raise RankflowError(
            ErrorType.UNSUPPORTED_INPUT,
            f"the store {root!r} cannot be opened: {str(error).partition(chr(10))[0]}",
        ) from error
