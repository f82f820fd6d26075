"""From an archive of pictures to a measured, exported network: ``python -m flows.train --preset=demo``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows import approval, console
from flows.attempts import begin_attempt
from flows.command_line import parse
from flows.parameters import TrainFlowParameters
from flows.sites import Sites
from tasks.archive import archive
from tasks.artifacts import percent
from tasks.convert import convert
from tasks.evaluate import evaluate, read_scores
from tasks.export import export
from tasks.fetch import fetch
from tasks.inspect import inspect
from tasks.predict import predict
from tasks.publication import publish_model
from tasks.report import report, summarise
from tasks.result import StageResult, shown
from tasks.sample import sample
from tasks.sources import Address, Fetched, TrainedCheckpoint, check_photos
from tasks.train import train

console.set_up_logging()


@dataclass(frozen=True)
class Outcome:
    """Where everything is that a run made."""

    checkpoints: StageResult
    evaluation: StageResult
    graph: StageResult
    masks: StageResult
    report: Path


@flow(name="train", flow_run_name="{parameters.run_name}", persist_result=False)
def train_flow(parameters: TrainFlowParameters) -> Outcome:
    """Fetch a data set, convert it, train on it, archive, evaluate and export the network, and predict with it.

    Args:
        parameters: One section a stage. What is left empty comes from the preset, then from the original's defaults.
    """
    begin_attempt()
    with Sites.of(parameters) as at:
        outcome = _run(parameters, at)
        publish_model(parameters.title, outcome.graph, outcome.evaluation)
    return outcome


@dataclass(frozen=True)
class Data:
    """What a run trains on, and what it came of."""

    made_of: list[StageResult]
    shards: StageResult


@dataclass(frozen=True)
class Trained:
    """A measured training."""

    training: StageResult
    checkpoints: StageResult
    evaluation: StageResult

    @property
    def checkpoint(self) -> TrainedCheckpoint:
        """What later stages read."""
        return TrainedCheckpoint(self.training, self.checkpoints)


def prepare(parameters: TrainFlowParameters, at: Sites) -> Data:
    """Draw or fetch the data set, and convert it."""
    values = parameters.values
    drawn = [] if parameters.source else [sample(at("sample"), values("sample"))]
    source = parameters.source or str(drawn[0].here())
    fetched = fetch(at("fetch"), values("fetch"), source)
    shards = convert(at("convert"), values("convert"), parameters.dataset_name, fetched)
    if not isinstance(fetched, Address) and not shards.reused:
        inspect(parameters.dataset_name, fetched.here())
    return Data([*drawn, *([fetched.result] if isinstance(fetched, Fetched) else [])], shards)


def fit(parameters: TrainFlowParameters, at: Sites, shards: StageResult) -> Trained:
    """Train, archive and evaluate."""
    training = train(at("train"), parameters.values("train"), parameters.data.name, shards)
    checkpoints = archive(at("archive"), training)
    checkpoint = TrainedCheckpoint(training, checkpoints)
    return Trained(training, checkpoints, evaluate(at("evaluate"), parameters.values("evaluate"), shards, checkpoint))


def _run(parameters: TrainFlowParameters, at: Sites) -> Outcome:
    if images := parameters.values("predict").get("images"):
        check_photos(images)
    data = prepare(parameters, at)
    trained = fit(parameters, at, data.shards)
    if parameters.approve:
        approval.ask(trained.evaluation)
    graph = export(at("export"), parameters.values("export"), trained.checkpoint)
    masks = predict(at("predict"), parameters.values("predict"), graph, data.shards)
    results = [*data.made_of, data.shards, trained.training, trained.checkpoints, trained.evaluation, graph, masks]
    page = report(at("report"), results)
    summarise(results, page)
    for result in (graph, masks):
        result.here()  # what a person looks at comes home from wherever it was made
    return Outcome(trained.checkpoints, trained.evaluation, graph, masks, page)


def summary(outcome: Outcome) -> str:
    """What came of a run, and where it is."""
    scores = read_scores(outcome.evaluation)
    lines = [
        ("mean IoU", f"{percent(scores['miou'])} on {scores['images']} images"),
        ("report", shown(outcome.report)),
        ("masks", shown(outcome.masks.here() / "overlays")),
        ("frozen graph", shown(outcome.graph.here())),
        ("checkpoints", outcome.checkpoints.place_of("checkpoints.tar.gz")),
    ]
    return "\n".join(f"{name:13s} {value}" for name, value in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(TrainFlowParameters, "python -m flows.train", words)
        if parameters.approve:
            console.require_server("--approve asks in Prefect's UI")
        console.start_api()
        print(summary(train_flow(parameters)))

    return console.run(body)


if __name__ == "__main__":
    raise SystemExit(main())
