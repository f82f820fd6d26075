"""A person's consent before a checkpoint is exported: the run waits in Prefect's UI, its worker free meanwhile."""

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput, keyset_from_base_key
from prefect.input.actions import read_flow_run_input
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from pydantic import Field

from deeplab.errors import DeepLabError
from tasks.artifacts import mean_iou, percent
from tasks.evaluate import read_scores
from tasks.pictures import jpeg_data_uri
from tasks.result import StageResult

# Seconds that a run waits for its answer: two weeks, over a holiday.
_PATIENCE = 14 * 24 * 3600
# Most bytes of the sheet in the form.
_LARGEST_PICTURE = 150_000
# So many that the sheet below them is still seen.
_CLASSES = 5


class NotApproved(DeepLabError):
    """A person has seen the scores, and does not want this checkpoint exported."""


class Approval(RunInput):
    """What the form asks."""

    export: bool = Field(
        True, description="Export this checkpoint and predict with it. Switched off, the run ends as Failed."
    )
    remark: str = Field("", description="Why; stands in the run's log, and in its state where the answer is no.")


def ask(evaluation: StageResult) -> None:
    """Wait for consent. A run of a deployment ends here and starts again, reusing all it has; another waits in place.

    A retry keeps a yes; after a no, or without an answer, it asks anew.

    Args:
        evaluation: what the form shows: mean IoU, the weakest classes, the sheet.

    Raises:
        NotApproved: if the answer is no, or the run was moved on by somebody who gave none.
    """
    logger, attempt = get_run_logger(), _ended_attempts()
    answers = [_answer(evaluation, number) for number in range(attempt + 1)]
    answer = next((given for given in answers if given is not None and given.export), None)
    if answer is None:
        logger.info("the export needs consent: Resume, on this run's page, shows the scores and asks")
        question = Approval.with_initial_data(description=_evidence(evaluation))
        wait = suspend_flow_run if deployment.id else pause_flow_run
        wait(wait_for_input=question, timeout=_PATIENCE, key=_key(evaluation, attempt))
        # What Prefect returns where nobody answered is the form as it stood there.
        answer = _answer(evaluation, attempt)
    if answer is None:
        again = "retry the run" if deployment.id else "give the same command again"
        raise NotApproved(f"nobody has answered whether to export; {again}, and it asks again")
    remark = f": {answer.remark}" if answer.remark else ""
    if not answer.export:
        raise NotApproved(f"the export was not approved{remark}")
    logger.info("the export was approved%s", remark)


def _key(evaluation: StageResult, attempt: int) -> str:
    """Another checkpoint is another question, and so is another attempt of the run."""
    return f"export-{evaluation.key}" + f"-{attempt}" * bool(attempt)


def _ended_attempts() -> int:
    """How often this run has ended before; waiting for an answer is no end."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(str(flow_run.id)))
    return sum(state.is_final() for state in states)


def _answer(evaluation: StageResult, attempt: int) -> Approval | None:
    """What a person has answered to the question of an attempt, if anything."""
    name = "suspended" if deployment.id else "paused"
    given: Any = read_flow_run_input(keyset_from_base_key(f"{name}-{_key(evaluation, attempt)}")["response"])
    return None if given is None else Approval(**given)


def _evidence(evaluation: StageResult) -> str:
    """Markdown with what a person needs to decide."""
    scores = read_scores(evaluation)
    measured = [row for row in scores["per_class"] if row["iou"] is not None]
    weakest = sorted(measured, key=lambda row: float(row["iou"]))[:_CLASSES]
    lines = [
        f"**{mean_iou(scores)}**, pixel accuracy {percent(scores['pixel_accuracy'])}\n",
        "| weakest classes | IoU |\n| --- | ---: |",
        *(f"| {row['name']} | {percent(row['iou'])} |" for row in weakest),
    ]
    sheet = evaluation.file("sheet.png")
    if sheet.exists():
        picture = jpeg_data_uri(sheet, widest=1200, largest=_LARGEST_PICTURE)
        lines.append(f"\nPhoto | truth | prediction\n\n![photo, truth and prediction]({picture})")
    return "\n".join(lines)
