"""Masks for a folder of photos: ``python -m flows.batch_inference --model=graph.pb --images=photos``."""

import sys
from collections.abc import Sequence
from typing import Any, cast

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from deeplab.data.origin import without_secrets
from deeplab.errors import DataError
from flows import console
from flows.attempts import begin_attempt
from flows.command_line import parse
from flows.one_stage import OneStageParameters, last_part, plain_section
from flows.parameters import Section
from flows.sites import Sites
from tasks.predict import segment
from tasks.result import StageResult, shown
from tasks.sources import UserFiles, network, photos

console.set_up_logging()

PredictSection = plain_section("predict", "images")


class InferenceParameters(OneStageParameters):
    """Segment photos with a frozen graph or a checkpoint."""

    model: str = Field(
        description="Frozen graph; checkpoint as folder, prefix or archive; an address of one; or STORE/export, the "
        "graph that was exported last."
    )
    images: str = Field(description="A photo, a folder, a glob of photos, or records.")
    skip_missing: bool = Field(
        False, description="Where there are no photos yet, end at once and well: for runs that start by themselves."
    )
    predict: PredictSection = Field(default_factory=PredictSection)  # type: ignore[valid-type]

    def title(self, model: str = "") -> str:
        """The photos' and the model's names, for the name of a run.

        Args:
            model: instead of the own one, if given.
        """
        return f"{last_part(self.images)} with {last_part(model or self.model)}"


def _run_name() -> str:
    given = flow_run.parameters
    return str(given["parameters"].title(given.get("model", "")))


@flow(name="batch-inference", flow_run_name=_run_name, persist_result=False)
def batch_inference_flow(parameters: InferenceParameters, model: str = "") -> StageResult | State[Any]:
    """Segment photos: masks, coloured masks and overlays.

    Args:
        parameters: Which photos, with which model, and where.
        model: Another model than the one of the parameters: what a training has published comes here. Empty: theirs.
    """
    place = model or parameters.model
    begin_attempt()
    with Sites.of(parameters) as at:
        site = at("predict")
        try:
            images = photos(parameters.images, site.mirror, "images")
        except DataError as error:
            if not parameters.skip_missing:
                raise
            return Completed(name="Skipped", message=str(error))
        found, description = network(place, site.mirror, "model")
        get_run_logger().info("with %s", found.place if isinstance(found, UserFiles) else without_secrets(place))
        return segment(site, cast("Section", parameters.predict).given(), found, images, description)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(InferenceParameters, "python -m flows.batch_inference", words)
        console.start_api()
        result = batch_inference_flow(parameters)
        skipped = f"skipped: {parameters.images} is not there"
        print(f"masks  {shown(result.here())}" if isinstance(result, StageResult) else skipped)

    return console.run(body)


if __name__ == "__main__":
    raise SystemExit(main())
