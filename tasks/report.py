"""``report.html``: what a run was asked for and what came of it, in one file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from deeplab.config import CONFIGS, ModelDescription
from deeplab.stage.manifest import Manifest, describe_output, products_digest
from tasks.artifacts import percent, publish_summary
from tasks.chart import loss_curve, read_points
from tasks.evaluate import read_scores
from tasks.pictures import jpeg_data_uri
from tasks.result import StageResult, shown
from tasks.stage import Site
from tasks.store import Entry, Identity

# Raised when the page changes for equal inputs.
_CODE_VERSION = 1
_FILE_NAME = "report.html"
# Widest row of pixels and most bytes of a picture on the page.
_SHEET_SIZE = {"widest": 1200, "largest": 600_000}
_PICTURE_SIZE = {"widest": 480, "largest": 80_000}
_MOST_PICTURES = 12


@dataclass(frozen=True)
class StageRow:
    """A line of the table of stages."""

    result: StageResult
    settings: dict[str, Any]
    all_settings: dict[str, Any]

    @classmethod
    def of(cls, result: StageResult) -> "StageRow":
        """Read what a stage ran with from its manifest."""
        parameters = result.manifest.parameters
        fields = CONFIGS[result.stage].model_fields
        defaults = {name: info.get_default(call_default_factory=True) for name, info in fields.items()}
        changed = {name: value for name, value in parameters.items() if _plain(defaults.get(name)) != value}
        return cls(result, changed, parameters)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@task(persist_result=False, task_run_name="report")
def report(site: Site, results: Sequence[StageResult]) -> Path:
    """Write the report of a run.

    Args:
        site: where outputs live.
        results: what every stage left, in order.

    Returns:
        The page.
    """
    entry = site.store.entry(_identity(results))
    page = entry.folder / _FILE_NAME
    with entry.held(lambda: None):
        if entry.manifest() is None:
            entry.prepare()
            entry.folder.mkdir(exist_ok=True)
            _write(page, render(results))
            _seal(entry, page)
        entry.touch()
    get_run_logger().info("report %s", shown(page))
    return page


def summarise(results: Sequence[StageResult], page: Path) -> None:
    """Show what came of a run. No task: it stands with the run itself in Prefect, above what its stages show.

    Args:
        results: what every stage left, in order.
        page: the report.
    """
    rows = [(result.stage, result.reused, result.seconds, result.key) for result in results]
    evaluation = next(result for result in results if result.stage == "evaluate")
    publish_summary(read_scores(evaluation), rows, shown(page))


def _identity(results: Sequence[StageResult]) -> Identity:
    """The page also tells what was reused, so that belongs to its key."""
    reused = {result.stage: result.reused for result in results}
    inputs = {result.stage: f"{result.key} {result.digest}" for result in results}
    return Identity(stage="report", code_version=_CODE_VERSION, parameters={"reused": reused}, inputs=inputs)


def _write(page: Path, text: str) -> None:
    temporary = page.with_name(f".tmp-{page.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(page)


def _seal(entry: Entry, page: Path) -> None:
    """The page tells durations, so it is a record: it is in no digest."""
    identity = entry.identity
    Manifest(
        stage=identity.stage,
        code_version=identity.code_version,
        parameters=identity.parameters,
        inputs=identity.inputs,
        outputs=(describe_output(entry.folder, page, "record"),),
        digest=products_digest([]),
    ).write(entry.folder / "manifest.json")


def render(results: Sequence[StageResult]) -> str:
    """The page as HTML."""
    # Only the first of equal runs makes the page.
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    by_stage = {result.stage: result for result in results}
    training, evaluation = by_stage["train"], by_stage["evaluate"]
    description = ModelDescription.read(training.file("model.json"))
    points = read_points(training.file("metrics.jsonl"))
    sheet = evaluation.file("sheet.png")
    environment = Environment(
        loader=PackageLoader("tasks", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, setting=_setting)
    return environment.get_template("report.html.jinja").render(
        model=description,
        scores=read_scores(evaluation),
        classes=_classes(read_scores(evaluation), description),
        curve=Markup(loss_curve(points, ink="currentColor", line="var(--accent)")),
        last_point=points[-1] if points else None,
        sheet=jpeg_data_uri(sheet, **_SHEET_SIZE) if sheet.exists() else None,
        pictures=_pictures(by_stage["predict"].here()),
        stages=[StageRow.of(result) for result in results],
    )


def _classes(scores: Mapping[str, Any], description: ModelDescription) -> list[dict[str, Any]]:
    """The rows of the class table, each with its colour as CSS, where the description knows one."""
    colours = [f"rgb({','.join(str(part) for part in entry.colour)})" for entry in description.classes]
    known = dict(enumerate(colours))
    return [{**row, "colour": known.get(row["id"], "transparent")} for row in scores["per_class"]]


def _pictures(folder: Path) -> list[tuple[str, str]]:
    """(name, data URI) of the overlays that ``predict`` wrote."""
    paths = sorted((folder / "overlays").glob("*.jpg"))[:_MOST_PICTURES]
    return [(path.stem, jpeg_data_uri(path, **_PICTURE_SIZE)) for path in paths]


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(str(item) for item in value) if isinstance(value, list) else "–" if value is None else str(value)
