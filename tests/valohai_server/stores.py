"""Stores: their list, and adopting a file that lies in one already."""

import os
from typing import Any

from tests.valohai_server.answers import ApiError, Call, invalid, not_found, page
from tests.valohai_server.data import add_datum
from tests.valohai_server.inputs import fetch, sources
from tests.valohai_server.routing import route


@route("GET", "/stores/")
def stores(call: Call) -> dict[str, Any]:
    return page(call, call.server.store.find("store"), lambda row: row)


@route("POST", "/stores/{store}/adopt/")
def adopt(call: Call, store: str) -> dict[str, Any]:
    """Make a datum of ``azure://ACCOUNT/CONTAINER/BLOB``; the bytes are copied."""
    fields = call.body()
    if (
        call.server.store.get("store", store) is None
        or call.server.store.get("project", fields.get("project", "")) is None
    ):
        raise not_found()
    url = str(fields.get("url"))
    if not url.startswith("azure://"):
        raise invalid("url", "Only azure:// can be adopted here.")
    part = call.server.folder / f"upload-{os.urandom(8).hex()}"
    try:
        (source,) = sources(call.server, url)
        fetch(call.server, source, part)
    except Exception as error:  # whatever a client of a store may raise
        raise ApiError(400, {"url": [{"message": str(error), "code": "adoptable_file_not_found"}]}) from None
    datum = add_datum(call.server, fields["project"], source.name, part)
    return {"ok": True, "created": {url: datum["id"]}}
