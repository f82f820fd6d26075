"""Pipelines and tasks on the local Valohai: checked, submitted once, followed, stopped."""

import threading
import time

import pytest
from prefect.logging import disable_run_logger

from tasks import valohai_group
from tasks.valohai.client import Client
from tasks.valohai.connection import Connection
from tasks.valohai.environments import find_environment
from tasks.valohai.errors import ExecutionFailed, ExecutionStopped, InvalidRequest
from tasks.valohai.execution import stop, submit_once
from tasks.valohai.following import Receivers
from tasks.valohai.groups import children, follow_group
from tasks.valohai.package import ensure_commit
from tasks.valohai.pipelines import NodeValues, pipeline_request
from tasks.valohai.records import Execution, Pipeline, Task
from tasks.valohai.step import named_item, read_config
from tasks.valohai.sweeps import sweep_request, sweep_table, varied
from tests.valohai_server.process import running

YAML = """
- step:
    name: Say
    image: python:3.11
    command: sh -c {parameter-value:script}
    parameters:
      - {name: script, type: string, default: "true"}
      - {name: rate, type: float, default: 0.5}
      - {name: steps, type: integer, optional: true, max: 9}
      - {name: quiet, type: flag, pass-false-as: --quiet=false, pass-true-as: --quiet=true}
    inputs:
      - {name: data, optional: true}
- step:
    name: Read
    image: python:3.11
    command: cat /valohai/inputs/data/*
    inputs:
      - {name: data}
      - {name: more, optional: true}
- pipeline:
    name: Two nodes
    nodes:
      - {name: say-node, type: execution, step: Say}
      - {name: read-node, type: execution, step: Read, override: {inputs: [{name: data}]}}
    edges:
      - [say-node.output.*, read-node.input.data]
- pipeline:
    name: Sweep and read
    nodes:
      - {name: sweep-node, type: task, task: Rates}
      - {name: read-node, type: execution, step: Read, override: {inputs: [{name: data}]}}
    edges:
      - [sweep-node.output.*, read-node.input.data]
- task:
    name: Rates
    step: Say
    type: grid_search
    on-child-error: continue-and-error
    parameters:
      - {name: rate, style: multiple, rules: {items: [0.1, 0.2]}}
"""
# Lines of the two streams come in the order of their times only if these differ enough.
TURN = "sleep 0.3"
WRITE = f"echo one; {TURN}; echo two >&2; printf three > /valohai/outputs/file"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("valohai") / "data", "--grace=2", "--workers=4") as process:
        yield process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("code")
    (path / "valohai.yaml").write_text(YAML)
    return path


@pytest.fixture
def config(folder):
    return read_config(folder / "valohai.yaml")


@pytest.fixture
def remote(server):
    connection = Connection.resolve(host=server.host, token=server.token, project=server.project)
    with Client(connection, patience=30.0) as client:
        yield client
    server.clear_faults()


@pytest.fixture
def commit(remote, folder):
    return ensure_commit(remote, folder).identifier


@pytest.fixture
def two_nodes(config, commit, request):
    """A request for the first pipeline that is this test's own."""

    def make(script=WRITE):
        values = NodeValues(parameters={"say-node": {"script": f"{script}; : {request.node.nodeid}"}})
        return pipeline_request(config, config.pipelines["Two nodes"], commit, values)

    return make


class Seen:
    """What was told of a group."""

    def __init__(self):
        self.lines, self.statuses, self.states = [], [], []

    def receivers(self, child):
        return Receivers(
            event=lambda event: self.lines.append((child.name, event.message)) if event.stream != "status" else None,
            status=lambda execution: self.statuses.append((child.name, execution.status)),
        )

    def changed(self, group):
        self.states.append(group.state)

    def of(self, name):
        return [line for found, line in self.lines if found == name]


@pytest.fixture
def seen():
    return Seen()


def submit(remote, request):
    return submit_once(remote, request.key, request)


def follow(remote, request, seen, stop=None):
    return follow_group(remote, submit(remote, request).job, seen.receivers, changed=seen.changed, stop=stop)


def test_a_pipeline_to_its_good_end(remote, two_nodes, seen):
    pipeline = follow(remote, two_nodes(), seen)
    assert pipeline.status == "complete" and pipeline.title == "Two nodes"
    assert seen.of("say-node") == ["one", "two"]
    assert seen.of("read-node") == ["three"]
    assert seen.states[-1] == ("complete", "complete", "complete")
    assert ("read-node", "complete") in seen.statuses
    assert [child.name for child in children(remote, pipeline)] == ["say-node", "read-node"]


def test_each_line_of_a_long_log_comes_once(remote, two_nodes, seen):
    script = "for i in $(seq 300); do echo $i; sleep 0.005; done; touch /valohai/outputs/file"
    follow(remote, two_nodes(script), seen)
    assert seen.of("say-node") == [str(number) for number in range(1, 301)]


def test_a_failing_node_brings_its_last_lines(remote, two_nodes, seen):
    with pytest.raises(
        ExecutionFailed, match=r"pipeline =\d+ 'Two nodes' .* because of say-node .*#\d+.*: out of luck"
    ) as raised:
        follow(remote, two_nodes(f"echo one; {TURN}; echo out of luck >&2; exit 3"), seen)
    assert raised.value.lines == ("one", "out of luck")
    assert "read-node" not in dict(seen.statuses)


def test_an_edge_without_files_is_explained(remote, two_nodes, seen):
    with pytest.raises(ExecutionFailed, match=r"Two nodes.*node read-node: .*nothing to pass on"):
        follow(remote, two_nodes("true"), seen)


def test_a_pipeline_is_stopped_on_request(remote, two_nodes, seen):
    asked = time.monotonic()
    with pytest.raises(ExecutionStopped, match="stopped on request; run the same command again to go on"):
        follow(remote, two_nodes("echo begun; sleep 60"), seen, stop=lambda: seen.of("say-node") == ["begun"])
    assert time.monotonic() - asked < 20
    assert ("say-node", "stopped") in seen.statuses


@pytest.mark.parametrize("wanted", [True, False])
def test_stop_while_the_answer_to_a_submission_is_awaited(remote, two_nodes, monkeypatch, wanted):
    create, made = remote.create, []

    def interrupted(*arguments):
        made.append(create(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(remote, "create", interrupted)
    monkeypatch.setattr(valohai_group, "stop_is_wanted", lambda interruption: wanted)
    with disable_run_logger(), pytest.raises(KeyboardInterrupt):
        valohai_group.run_group(remote, two_nodes("sleep 60"))
    (pipeline,) = [remote.job(Pipeline, job.id) for job in made]
    assert pipeline.final == wanted
    if not wanted:
        stop(remote, pipeline)


def test_the_service_may_restart_meanwhile(server, remote, two_nodes, seen):
    def restart():
        server.kill()
        time.sleep(0.5)
        server.start()

    timer = threading.Timer(1.0, restart)
    timer.start()
    try:
        follow(remote, two_nodes("for i in 1 2 3; do echo $i; sleep 1; done; touch /valohai/outputs/x"), seen)
    finally:
        timer.join()
    assert seen.of("say-node") == ["1", "2", "3"]


@pytest.mark.parametrize("kind", ["lost-answer", "503", "refuse", "429"])
def test_one_pipeline_whatever_becomes_of_the_request(server, remote, two_nodes, kind):
    request = two_nodes("sleep 0.1; touch /valohai/outputs/x")
    before = len(list(remote.jobs(Pipeline)))
    server.fault(kind, "POST .*/pipelines/$")
    made, again = submit(remote, request), submit(remote, request)
    assert not made.found and again.found and made.job.id == again.job.id
    assert len(list(remote.jobs(Pipeline))) == before + 1


def test_a_complete_pipeline_is_found_and_a_failed_one_makes_room(remote, two_nodes, seen):
    good, bad = two_nodes(), two_nodes("exit 1")
    assert follow(remote, good, seen).id == submit(remote, good).job.id
    with pytest.raises(ExecutionFailed):
        follow(remote, bad, seen)
    assert not submit(remote, bad).found
    assert not submit_once(remote, good.key, good, ignore={submit(remote, good).job.id}).found


def test_what_is_given_reaches_the_nodes(remote, config, commit, server, seen):
    link = server.upload("words", b"more words")
    values = NodeValues(
        parameters={"say-node": {"script": WRITE, "rate": "0.25", "steps": 3}}, inputs={"read-node": {"more": link}}
    )
    environment = find_environment(remote, "local-large")
    request = pipeline_request(config, config.pipelines["Two nodes"], commit, values, environment=environment.id)
    pipeline = follow(remote, request, seen)
    say, read = (remote.execution(child.execution.id) for child in children(remote, pipeline))
    # A flag that nobody gives is not sent: false would be passed on.
    assert say.parameters == {"script": WRITE, "rate": 0.25, "steps": 3}
    with server.client() as client:
        sent = client.get(f"/executions/{read.id}/").json()
    assert {entry["name"]: entry["urls"] for entry in sent["inputs"]}["more"] == [link]
    assert sent["environment"]["id"] == environment.id


def test_everything_that_is_wrong_is_told_at_once(config):
    values = NodeValues(
        parameters={"say-nod": {}, "say-node": {"rat": 1, "steps": "ten"}}, inputs={"read-node": {"data": "datum://1"}}
    )
    with pytest.raises(InvalidRequest) as raised:
        pipeline_request(config, config.pipelines["Two nodes"], "~1", values)
    for problem in (
        "has no node say-nod (did you mean say-node?)",
        "node say-node: has no parameter rat (did you mean rate?)",
        "node say-node: parameter steps",
        "node read-node: input data comes from another node and cannot be given",
    ):
        assert problem in str(raised.value)


def test_a_name_may_be_cut_short_but_not_unclear(config):
    assert named_item("pipeline", config.pipelines, "two").name == "Two nodes"
    with pytest.raises(InvalidRequest, match=r"'three' is no pipeline; there are: Two nodes, Sweep and read"):
        named_item("pipeline", config.pipelines, "three")
    with pytest.raises(InvalidRequest, match="may be any of Say"):
        named_item("step", {"Say": 1, "Say more": 2}, "sa")


def test_environments(remote):
    known = remote.environments()
    for word in (known[0].id, known[0].slug, known[0].name.upper()):
        assert find_environment(remote, word) == known[0]
    with pytest.raises(InvalidRequest, match=f"'gpu-9': there is no such environment; there are: .*{known[0].slug}"):
        find_environment(remote, "gpu-9")


SWEEP = 'echo rate; echo \'{"loss": 1.5, "words": [1]}\'; printf x > /valohai/outputs/file'


def test_a_sweep_and_its_table(remote, config, commit, seen):
    request = sweep_request(config, config.tasks["Rates"], commit, {"script": SWEEP, "rate": "0.25,0.5,0.75"}, {})
    assert varied(request) == ["rate"]
    task = follow(remote, request, seen)
    rows = sweep_table([remote.execution(child.execution.id) for child in children(remote, task)], varied(request))
    assert [{**row, "execution": 0} for row in rows] == [
        {"execution": 0, "status": "complete", "rate": rate, "loss": 1.5} for rate in (0.25, 0.5, 0.75)
    ]
    assert len(seen.lines) == 6
    assert submit(remote, request).found


def test_a_sweep_with_a_failing_child(remote, config, commit, seen):
    scripts = ["echo fine", "echo no >&2; exit 1"]
    request = sweep_request(config, config.tasks["Rates"], commit, {"script": scripts, "rate": 0.5}, {})
    assert varied(request) == ["script"]
    with pytest.raises(ExecutionFailed, match=r"task !\d+ 'Rates'.* because of execution #\d+: no"):
        follow(remote, request, seen)


def test_a_sweep_is_stopped_on_request(remote, config, commit, seen):
    request = sweep_request(config, config.tasks["Rates"], commit, {"script": "echo begun; sleep 60"}, {})
    with pytest.raises(ExecutionStopped):
        follow(remote, request, seen, stop=lambda: len(seen.lines) == 2)
    task = next(iter(remote.jobs(Task)))
    assert task.status == "stopped"
    assert {child.execution.status for child in children(remote, task)} == {"stopped"}


def test_what_a_sweep_does_not_allow(config):
    with pytest.raises(InvalidRequest, match=r"has no parameter rat .*; parameter steps: .*10"):
        sweep_request(config, config.tasks["Rates"], "~1", {"rat": 1, "steps": "1,10"}, {})
    request = sweep_request(config, config.tasks["Rates"], "~1", {"rate": 3}, {})
    assert varied(request) == [] and request.content["parameters"]["rate"]["rules"] == {"value": 3.0}


def test_a_sweep_within_a_pipeline(remote, config, commit, seen):
    values = NodeValues(parameters={"sweep-node": {"script": "printf word > /valohai/outputs/$$"}})
    pipeline = follow(remote, pipeline_request(config, config.pipelines["Sweep and read"], commit, values), seen)
    found = children(remote, pipeline)
    assert [child.name.split()[0] for child in found] == ["sweep-node", "sweep-node", "read-node"]
    assert "".join(seen.of("read-node")) == "wordword"
    rates = [remote.job(Execution, child.execution.id).parameters["rate"] for child in found[:2]]
    assert rates == [0.1, 0.2]
