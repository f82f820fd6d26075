"""What a run shows in Prefect: a progress bar per long stage, the loss curve, the scores, the sheet of pictures.

They live in Prefect's database, hence are small. They are shown to a person: when the API refuses one, the run
says so and goes on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_run_logger

from tasks.chart import Points, loss_curve, loss_point, read_points
from tasks.pictures import data_uri, jpeg_data_uri
from tasks.stage_output import amount

# Seconds between two updates: each is a request of about 30 ms, the curve a larger one.
_PROGRESS_INTERVAL, _CURVE_INTERVAL = 1.0, 10.0
# Most bytes of a picture in Prefect's database.
_LARGEST_PICTURE = 150_000
# Photos with masks that are shown.
_OVERLAYS, _COLUMNS = 6, 3
# Odd files that are listed.
_ODD = 10


def _show(what: str, publish: Callable[[], Any]) -> Any:
    """Publish; a refusal is a warning, because a picture is not worth a training."""
    try:
        return publish()
    except Exception as error:  # whatever the client raises
        get_run_logger().warning("%s is not shown in Prefect: %s", what, " ".join(str(error).split()))
        return None


def _identifier(created: Any) -> UUID:
    """Prefect's functions are typed for async callers too; called from a sync task they return the id itself."""
    assert isinstance(created, UUID)
    return created


class ProgressBar:
    """A stage's progress; appears with the first report."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._artifact: UUID | None = None
        self._last = -_PROGRESS_INTERVAL

    def progress(self, done: int, total: int, unit: str) -> None:
        """Show so much done, at most once a second but always the end."""
        now = time.monotonic()
        if now - self._last < _PROGRESS_INTERVAL and done < total:
            return
        self._last = now
        percent = 100.0 * done / total if total else 100.0
        text = f"{self._stage}: {amount(done, total, unit)}"
        _show("the progress bar", lambda: self._publish(min(100.0, percent), text))

    def _publish(self, percent: float, text: str) -> None:
        if self._artifact is None:
            self._artifact = _identifier(create_progress_artifact(percent, f"{self._stage}-progress", text))
        else:
            update_progress_artifact(self._artifact, percent, description=text)

    def point(self, values: Mapping[str, Any]) -> None:
        """Metrics are not progress."""


class LossCurve:
    """The loss over the steps, drawn anew while training runs."""

    def __init__(self) -> None:
        self._points: Points = []
        self._artifact: UUID | None = None
        self._last = time.monotonic()

    def progress(self, done: int, total: int, unit: str) -> None:
        """Progress is not a metric."""

    def point(self, values: Mapping[str, Any]) -> None:
        """Add a metric point."""
        point = loss_point(values)
        if point is None:
            return
        self._points.append(point)
        if time.monotonic() - self._last >= _CURVE_INTERVAL:
            self._last = time.monotonic()
            _show("the loss curve", self._draw)

    def publish(self, metrics_file: Path) -> None:
        """Show the whole curve, from the first step on.

        Args:
            metrics_file: the training's ``metrics.jsonl``.
        """
        self._points = read_points(metrics_file)
        if self._points:
            _show("the loss curve", self._draw)

    def _draw(self) -> None:
        step, loss = self._points[-1]
        picture = data_uri(loss_curve(self._points).encode(), "image/svg+xml")
        text, curve = f"Loss {loss:.4g} at step {step:.0f}", f"![loss over training steps]({picture})\n"
        if self._artifact is None:
            self._artifact = _identifier(create_markdown_artifact(curve, "train-loss", text))
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._artifact, ArtifactUpdate(data=curve, description=text))


def publish_scores(scores: Mapping[str, Any]) -> None:
    """Show the overall figures and the table of classes."""
    names = {"pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    overall = "\n".join(f"* {text}: {percent(scores.get(name))}" for name, text in names.items())
    description = f"{mean_iou(scores)}\n\n{overall}"
    rows = [
        {"id": row["id"], "class": row["name"], "IoU": percent(row["iou"]), "accuracy": percent(row["accuracy"])}
        for row in scores["per_class"]
    ]
    _show("the table of IoU", lambda: create_table_artifact(rows, key="evaluate-iou", description=description))


def publish_sheet(path: Path) -> None:
    """Show the sheet photo | truth | prediction, if the stage drew one."""
    if path.exists():
        _show("the sheet", lambda: _publish_picture(path, "evaluate-sheet", "Photo | truth | prediction"))


def publish_overlays(paths: Sequence[Path]) -> None:
    """Show some pictures of photos with their masks, evenly chosen."""
    chosen = list(dict.fromkeys(paths[number * len(paths) // _OVERLAYS] for number in range(_OVERLAYS if paths else 0)))

    def publish() -> None:
        size = {"widest": 480, "largest": _LARGEST_PICTURE // _OVERLAYS}
        cells = [f"![{path.stem}]({jpeg_data_uri(path, **size)})" for path in chosen]
        text = f"{len(chosen)} of {len(paths)} photos with their masks"
        table = _table([path.stem for path in chosen], cells)
        create_markdown_artifact(table, key="predict-overlays", description=text)

    if chosen:
        _show("the overlays", publish)


def _table(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Markdown tables of a few columns, one below the other."""
    starts = range(0, len(cells), _COLUMNS)
    rows = [(heads[start : start + _COLUMNS], cells[start : start + _COLUMNS]) for start in starts]
    lines = [f"| {' | '.join(head)} |\n|{' --- |' * len(head)}\n| {' | '.join(row)} |" for head, row in rows]
    return "\n\n".join(lines)


def publish_inspection(found: Mapping[str, Any], sheet: Path) -> None:
    """Show what ``deeplab inspect --json`` tells of a data set, and its sheet of samples, if one was drawn."""
    splits = found["splits"]
    title = f"The data set {found['dataset']}: {len(found['classes'])} classes, ignore label {found['ignore_label']}"
    odd = [text for split in splits.values() for text in (*split["errors"], *split["remarks"])]
    rows = [
        f"| {split} | {values['pairs']} | {_size(values['median'])} | {_size(values['largest'])} "
        f"| {percent(values['ignored'])} |"
        for split, values in splits.items()
    ]
    first = next(iter(splits.values()))
    counted = max(1, sum(first["pixels"]))
    classes = [
        f"| {number} | {text} | {percent(first['pixels'][number] / counted)} | {first['photos'][number]} |"
        for number, text in enumerate(found["classes"])
    ]
    lines = [
        "| split | pairs | median size | largest | ignored |\n| --- | ---: | ---: | ---: | ---: |",
        *rows,
        f"\nSuggested crops: training {_size(found['train_crop_size'])}, evaluation {_size(found['eval_crop_size'])}. "
        f"Files without partner: {len(found['lonely']) + len(found['left_out'])}. Odd files: {len(odd)}.",
        *(f"* {text}" for text in odd[:_ODD]),
        f"\nFrom {first['looked_at']} pairs of the first split:\n",
        "| label | class | share | photos |\n| ---: | --- | ---: | ---: |",
        *classes,
    ]
    _show("the data set", lambda: create_markdown_artifact("\n".join(lines), "data-set", title))
    if sheet.exists():
        _show("its samples", lambda: _publish_picture(sheet, "data-set-samples", "Photo | mask"))


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def _publish_picture(path: Path, key: str, text: str) -> None:
    picture = jpeg_data_uri(path, widest=1200, largest=_LARGEST_PICTURE)
    create_markdown_artifact(f"![{text}]({picture})\n", key=key, description=text)


def publish_summary(scores: Mapping[str, Any], rows: Sequence[tuple[str, bool, float, str]], report: str) -> None:
    """Show what came of the run.

    Args:
        scores: content of ``results.json``.
        rows: stage, whether it was reused, seconds it took, key.
        report: where the report is.
    """
    lines = [
        f"| {stage} | {'reused' if reused else 'ran'} | {seconds:.1f} | `{key}` |"
        for stage, reused, seconds, key in rows
    ]
    text = "\n".join(
        [
            f"Report: `{report}`\n",
            "| stage | this run | seconds | key |",
            "| --- | --- | ---: | --- |",
            *lines,
        ]
    )
    _show("the summary", lambda: create_markdown_artifact(text, "run-summary", mean_iou(scores)))


def publish_link(key: str, address: str, text: str) -> None:
    """Show a link to where something runs."""
    _show("the link", lambda: create_link_artifact(address, link_text=text, key=key, description=text))


def publish_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show a table; every row has the columns that it needs."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    whole = [{name: row.get(name, "") for name in columns} for row in rows]
    _show("the table", lambda: create_table_artifact(whole, key=key, description=description))


def mean_iou(scores: Mapping[str, Any]) -> str:
    """The one figure of an evaluation, as the content of its ``results.json`` has it."""
    return f"mean IoU {percent(scores.get('miou'))} on {scores.get('images')} images"


def percent(share: float | None) -> str:
    """A share 0..1 as a percentage with two decimals; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f} %"
