"""A person's consent before a checkpoint is exported: the run waits in Prefect's UI, its worker free meanwhile."""

from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from deeplab.errors import DeepLabError
from tasks.artifacts import percent
from tasks.evaluate import read_scores
from tasks.pictures import jpeg_data_uri
from tasks.result import StageResult

# Seconds that a run waits for its answer: two weeks, over a holiday.
_PATIENCE = 14 * 24 * 3600
# Most bytes of the sheet in the form.
_LARGEST_PICTURE = 150_000
_CLASSES = 12


class NotApproved(DeepLabError):
    """A person has seen the scores, and does not want this checkpoint exported."""


class Approval(RunInput):
    """What the form asks."""

    export: bool = Field(True, description="Export this checkpoint and predict with it.")
    remark: str = Field("", description="For the log.")


def ask(evaluation: StageResult) -> str:
    """Wait for consent. A run of a deployment ends here and starts again, reusing all it has; another waits in place.

    Args:
        evaluation: what the form shows: mean IoU, the weakest classes, the sheet.

    Returns:
        The person's remark.

    Raises:
        NotApproved: if the answer is no.
    """
    question = Approval.with_initial_data(description=_evidence(evaluation))
    wait = suspend_flow_run if flow_run.deployment_id else pause_flow_run
    # The key is the evaluation's: another checkpoint is another question.
    answer = wait(wait_for_input=question, timeout=_PATIENCE, key=f"export-{evaluation.key}")
    assert isinstance(answer, Approval)
    if not answer.export:
        raise NotApproved(f"the export was not approved{': ' * bool(answer.remark)}{answer.remark}")
    return answer.remark


def _evidence(evaluation: StageResult) -> str:
    """Markdown with what a person needs to decide."""
    scores = read_scores(evaluation)
    measured = [row for row in scores["per_class"] if row["iou"] is not None]
    weakest = sorted(measured, key=lambda row: float(row["iou"]))[:_CLASSES]
    lines = [
        f"**mean IoU {percent(scores['miou'])}**, pixel accuracy {percent(scores['pixel_accuracy'])} "
        f"on {scores['images']} images\n",
        "| weakest classes | IoU |\n| --- | ---: |",
        *(f"| {row['name']} | {percent(row['iou'])} |" for row in weakest),
    ]
    sheet = evaluation.file("sheet.png")
    if sheet.exists():
        picture = jpeg_data_uri(sheet, widest=1200, largest=_LARGEST_PICTURE)
        lines.append(f"\nPhoto | truth | prediction\n\n![photo, truth and prediction]({picture})")
    return "\n".join(lines)
