"""A sweep on Valohai: ``python -m flows.valohai_sweep --parameters.base_learning_rate=0.001,0.01``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect import flow
from valohai_yaml.objs import Config

from flows import console
from flows.attempts import begin_attempt
from flows.command_line import parse
from flows.valohai_parameters import SweepFlowParameters
from tasks.artifacts import publish_table
from tasks.valohai.block import load_connection
from tasks.valohai.client import Client
from tasks.valohai.groups import GroupRequest, children
from tasks.valohai.records import Task
from tasks.valohai.step import named_item
from tasks.valohai.sweeps import sweep_request, sweep_table, varied
from tasks.valohai_group import hand_over, run_group

console.set_up_logging()


@dataclass(frozen=True)
class Outcome:
    """A complete task and a row for each of its executions: what varies, and the last metrics."""

    task: Task
    rows: list[dict[str, Any]]


@flow(name="valohai-sweep", flow_run_name="{parameters.task}", persist_result=False)
def sweep_flow(parameters: SweepFlowParameters) -> Outcome:
    """Run a task of valohai.yaml on Valohai and compare its executions.

    Ctrl-C and a cancel stop the task too. After any other end the task goes on, and the same run follows it.

    Args:
        parameters: which task, what varies, and on which machines.
    """

    def request(config: Config, commit: str, environment: str | None) -> GroupRequest[Task]:
        task = named_item("task", config.tasks, parameters.task)
        return sweep_request(config, task, commit, parameters.parameters, parameters.inputs, environment=environment)

    begin_attempt()
    with Client(load_connection(parameters.credentials)) as client:
        made = hand_over(client, parameters.code, request)
        task = run_group(client, made, repeat=parameters.repeat)
        executions = [client.execution(child.execution.id) for child in children(client, task)]
    rows = sweep_table(executions, varied(made))
    publish_table("valohai-sweep", rows, f"Executions of {task.label} {task.title}")
    return Outcome(task, rows)


def summary(outcome: Outcome) -> str:
    """What came of a run: a line for each execution."""
    columns = list(dict.fromkeys(name for row in outcome.rows for name in row))
    table = [columns, *([_cell(row.get(name)) for name in columns] for row in outcome.rows)]
    widths = [max(len(line[number]) for line in table) for number in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([f"{outcome.task.label} is complete {outcome.task.page or ''}".rstrip(), *lines])


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(SweepFlowParameters, "python -m flows.valohai_sweep", words)
        console.start_api()
        print(summary(sweep_flow(parameters)))

    return console.run(body, hint="the same command follows the task if it still runs, else submits it again")


if __name__ == "__main__":
    raise SystemExit(main())
