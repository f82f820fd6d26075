"""Tells Prefect that a network is ready to be used; an automation may start what uses it."""

from pathlib import Path
from typing import Any

from prefect.events import emit_event

from tasks.evaluate import read_scores
from tasks.mirror import MirrorCopy
from tasks.result import StageResult

PUBLISHED = "deeplab.model.published"
# Resource of the event: this and the digest of the graph.
RESOURCE = "deeplab.graph."


def publish_model(title: str, graph: StageResult, evaluation: StageResult) -> None:
    """Emit the event ``deeplab.model.published``.

    Its payload: ``graph`` is the frozen graph's path on this machine, ``address`` where another machine reads it (None:
    nowhere), ``miou`` the mean IoU 0..1 (None: no class was there), ``images`` how many it was measured on, ``new``
    whether this run made the graph, ``title`` data set and network.
    """
    scores = read_scores(evaluation)
    path = Path(graph.here()).resolve()
    payload: dict[str, Any] = {
        "title": title,
        "graph": str(path),
        "address": _address(graph),
        "miou": scores.get("miou"),
        "images": scores.get("images"),
        "new": not graph.reused,
    }
    resource = {"prefect.resource.id": f"{RESOURCE}{graph.digest}", "prefect.resource.name": title}
    emit_event(PUBLISHED, resource=resource, payload=payload)


def _address(graph: StageResult) -> str | None:
    """Where the store's remote place has the graph, if the store has one."""
    return next((copy.place for copy in graph.copies if isinstance(copy, MirrorCopy)), None)
