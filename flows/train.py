"""From an archive of pictures to a measured, exported network: ``python -m flows.train --preset=demo``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows import console
from flows.command_line import parse
from flows.parameters import TrainFlowParameters
from tasks.archive import archive
from tasks.artifacts import percent
from tasks.convert import convert
from tasks.evaluate import evaluate, read_scores
from tasks.export import export
from tasks.fetch import fetch
from tasks.predict import predict
from tasks.report import report
from tasks.sample import sample
from tasks.stage import StageResult, shown
from tasks.store import Store
from tasks.train import train

console.quiet_expected_errors()


@dataclass(frozen=True)
class Outcome:
    """Where everything is that a run made."""

    checkpoints: StageResult
    evaluation: StageResult
    graph: StageResult
    masks: StageResult
    report: Path


@flow(name="train", flow_run_name="{parameters.title}", persist_result=False)
def train_flow(parameters: TrainFlowParameters) -> Outcome:
    """Fetch a data set, convert it, train on it, archive, evaluate and export the network, and predict with it.

    Args:
        parameters: one section a stage; what is left empty comes from the preset, then from the original's defaults.
    """
    store, values = Store.open(parameters.store), parameters.values
    drawn = [] if parameters.source else [sample(store, values("sample"))]
    source = parameters.source or str(drawn[0].output)

    fetched = fetch(store, values("fetch"), source)
    shards = convert(store, values("convert"), parameters.dataset_name, fetched)
    training = train(store, values("train"), parameters.dataset_name, shards)
    checkpoints = archive(store, training)
    evaluation = evaluate(store, values("evaluate"), shards, training)
    graph = export(store, values("export"), training)
    masks = predict(store, values("predict"), graph, shards)

    page = report(store, [*drawn, fetched, shards, training, checkpoints, evaluation, graph, masks])
    return Outcome(checkpoints, evaluation, graph, masks, page)


def summary(outcome: Outcome) -> str:
    """What came of a run, and where it is."""
    scores = read_scores(outcome.evaluation)
    lines = [
        ("mean IoU", f"{percent(scores['miou'])} on {scores['images']} images"),
        ("report", shown(outcome.report)),
        ("masks", shown(outcome.masks.folder / "overlays")),
        ("frozen graph", shown(outcome.graph.output)),
        ("checkpoints", shown(outcome.checkpoints.folder / "checkpoints.tar.gz")),
    ]
    return "\n".join(f"{name:13s} {value}" for name, value in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(TrainFlowParameters, "python -m flows.train", words)
        console.start_api()
        print(summary(train_flow(parameters)))

    return console.run(body)


if __name__ == "__main__":
    raise SystemExit(main())
