"""A whole pipeline on Valohai: ``python -m flows.valohai_pipeline --pipeline="Full pipeline"``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect import flow
from valohai_yaml.objs import Config

from flows import console
from flows.attempts import begin_attempt
from flows.command_line import parse
from flows.valohai_parameters import PipelineFlowParameters
from tasks.artifacts import publish_table
from tasks.valohai.block import load_connection
from tasks.valohai.client import Client
from tasks.valohai.groups import GroupRequest
from tasks.valohai.pipelines import NodeValues, pipeline_request
from tasks.valohai.records import Pipeline
from tasks.valohai.step import named_item
from tasks.valohai_group import hand_over, output_rows, run_group

console.set_up_logging()


@dataclass(frozen=True)
class Outcome:
    """A complete pipeline and a row for each file that it has made."""

    pipeline: Pipeline
    outputs: list[dict[str, Any]]


@flow(name="valohai-pipeline", flow_run_name="{parameters.pipeline}", persist_result=False)
def pipeline_flow(parameters: PipelineFlowParameters) -> Outcome:
    """Run a pipeline of valohai.yaml on Valohai, with its nodes' logs in this run's.

    Ctrl-C and a cancel stop the pipeline too. After any other end the pipeline goes on, and the same run follows it.

    Args:
        parameters: which pipeline, with what, and on which machines.
    """

    def request(config: Config, commit: str, environment: str | None) -> GroupRequest[Pipeline]:
        pipeline = named_item("pipeline", config.pipelines, parameters.pipeline)
        values = NodeValues(parameters.parameters, parameters.inputs)
        return pipeline_request(config, pipeline, commit, values, environment=environment)

    begin_attempt()
    with Client(load_connection(parameters.credentials)) as client:
        made = hand_over(client, parameters.code, request)
        pipeline = run_group(client, made, repeat=parameters.repeat)
        rows = output_rows(client, pipeline)
    publish_table("valohai-outputs", rows, f"Outputs of {pipeline.label} {pipeline.title}")
    return Outcome(pipeline, rows)


def summary(outcome: Outcome) -> str:
    """What came of a run, and how to use it as an input."""
    widest = max((len(f"{row['node']} {row['output']}") for row in outcome.outputs), default=0)
    lines = [f"{row['node'] + ' ' + row['output']:{widest}s}  {row['address']}" for row in outcome.outputs]
    return "\n".join([f"{outcome.pipeline.label} is complete {outcome.pipeline.page or ''}".rstrip(), *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(PipelineFlowParameters, "python -m flows.valohai_pipeline", words)
        console.start_api()
        print(summary(pipeline_flow(parameters)))

    return console.run(body, hint="the same command follows the pipeline if it still runs, else submits it again")


if __name__ == "__main__":
    raise SystemExit(main())
