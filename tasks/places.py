"""Where a store is: a folder here, or a remote place with a folder here for what is worked on."""

import hashlib
import os
from pathlib import Path

from deeplab.data.origin import holds_secrets, without_secrets
from tasks.errors import StoreError
from tasks.mirror import Mirror
from tasks.sources import lies_here
from tasks.store import Store

DEFAULT_STORE = "deeplab-store"


def open_store(place: str, *, make: bool = True) -> tuple[Store, Mirror | None]:
    """The folder of outputs here, and the remote place that a URL names.

    Args:
        place: path or URL.
        make: make a folder that is missing.

    Raises:
        StoreError: for a place that cannot be used.
    """
    if holds_secrets(place):
        raise StoreError(
            f"--store={without_secrets(place)}: its address is shown in logs and pages; leave the signature or "
            "password out, and give credentials by --azure_storage or the environment"
        )
    if lies_here(place):
        return Store.open(place, make=make), None
    mirror = Mirror(place.rstrip("/"))
    mirror.check()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(mirror.url.encode()).hexdigest()[:12]
    return Store.open(str(cache / "deeplab-prefect" / "stores" / name)), mirror
