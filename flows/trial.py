"""One training of a sweep, measured but not exported: ``python -m flows.trial --config=trial.yaml``."""

import sys
from collections.abc import Sequence

from prefect import flow

from flows import console
from flows.attempts import begin_attempt
from flows.command_line import parse
from flows.parameters import TrainFlowParameters
from flows.sites import Sites
from flows.train import Trained, fit, prepare
from tasks.artifacts import percent
from tasks.evaluate import read_scores

console.set_up_logging()


@flow(name="trial", flow_run_name="{parameters.run_name}", persist_result=False)
def trial_flow(parameters: TrainFlowParameters) -> Trained:
    """Fetch and convert a data set, train on it, archive and evaluate.

    Args:
        parameters: As of the training flow; what follows the evaluation is not asked for.
    """
    begin_attempt()
    with Sites.of(parameters) as at:
        return fit(parameters, at, prepare(parameters, at).shards)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(TrainFlowParameters, "python -m flows.trial", words)
        console.end_with_parent()
        console.start_api()
        scores = read_scores(trial_flow(parameters).evaluation)
        print(f"mean IoU {percent(scores['miou'])} on {scores['images']} images")

    return console.run(body)


if __name__ == "__main__":
    raise SystemExit(main())
