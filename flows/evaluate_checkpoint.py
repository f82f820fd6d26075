"""Scores of any checkpoint: ``python -m flows.evaluate_checkpoint --checkpoint=run --records=tfrecords.tar.gz``."""

import sys
from collections.abc import Sequence
from typing import cast

from prefect import flow
from pydantic import Field

from flows import console
from flows.attempts import begin_attempt
from flows.command_line import parse
from flows.one_stage import OneStageParameters, last_part, plain_section
from flows.parameters import Section
from flows.sites import Sites
from tasks.artifacts import percent
from tasks.evaluate import measure, read_scores
from tasks.result import StageResult, shown
from tasks.sources import files, network

console.set_up_logging()

EvaluateSection = plain_section("evaluate")


class EvaluationParameters(OneStageParameters):
    """Measure a checkpoint on labelled photos."""

    checkpoint: str = Field(description="Folder, prefix or archive of the checkpoint, or an address of an archive.")
    records: str = Field(description="Folder of shards, or tfrecords.tar.gz, or an address of one.")
    dataset: str | None = Field(None, description="Data set. Empty: the checkpoint's.")
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)  # type: ignore[valid-type]

    @property
    def title(self) -> str:
        """The checkpoint's name, for the name of a run."""
        return f"{last_part(self.checkpoint)} on {last_part(self.records)}"


@flow(name="evaluate-checkpoint", flow_run_name="{parameters.title}", persist_result=False)
def evaluate_checkpoint_flow(parameters: EvaluationParameters) -> StageResult:
    """Measure a checkpoint: mean IoU, the table of classes, and a sheet of photo, truth and prediction.

    Args:
        parameters: Which checkpoint, on which records, and where.
    """
    begin_attempt()
    with Sites.of(parameters) as at:
        site = at("evaluate")
        checkpoint, description = network(parameters.checkpoint, site.mirror, "checkpoint")
        records = files(parameters.records, site.mirror, "records")
        dataset = parameters.dataset or (description.dataset if description else None)
        values = {**cast("Section", parameters.evaluate).given(), **({"dataset": dataset} if dataset else {})}
        return measure(site, values, records, checkpoint, description)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(EvaluationParameters, "python -m flows.evaluate_checkpoint", words)
        console.start_api()
        result = evaluate_checkpoint_flow(parameters)
        scores = read_scores(result)
        print(f"mean IoU  {percent(scores['miou'])} on {scores['images']} images\nscores    {shown(result.here())}")

    return console.run(body)


if __name__ == "__main__":
    raise SystemExit(main())
