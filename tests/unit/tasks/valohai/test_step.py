"""Requests are checked against valohai.yaml before anything is sent."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.valohai.errors import InvalidRequest
from tasks.valohai.step import read_step, request_for

YAML = """
- step:
    name: Train DeepLab model
    image: python:3.11
    command: [set -e, "deeplab train {parameters}"]
    time-limit: 1h
    no-output-timeout: 600
    environment: not-sent
    environment-variables: [{name: A, default: "1"}, {name: B, optional: true}]
    parameters:
      - {name: steps, type: integer, default: 100, min: 1}
      - {name: rate, type: float, optional: true}
      - {name: crop, default: "513,513"}
      - {name: optimizer, choices: [momentum, adam], default: momentum}
      - {name: logtostderr, type: flag, default: true}
      - {name: quiet, type: flag}
      - {name: rates, type: integer, multiple: repeat, default: [6, 12]}
      - {name: note, optional: true}
    inputs:
      - {name: tfrecords}
      - {name: checkpoints, optional: true}
      - {name: extra, default: "azure://a/b/c"}
- step: {name: Train other, image: i, command: c}
- step: {name: Export, image: i, command: c, parameters: [{name: needed, type: string}]}
"""


@pytest.fixture
def yaml(tmp_path):
    path = tmp_path / "valohai.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture
def train(yaml):
    return read_step(yaml, "Train DeepLab model")


DATA = {"tfrecords": "datum://1"}


def test_everything_is_explicit_and_nothing_is_null(train):
    request = request_for(train, "~1", {"note": None, "rate": None}, DATA)
    payload = request.payload("P", "K")
    assert payload["parameters"] == {
        "steps": 100, "crop": "513,513", "optimizer": "momentum", "logtostderr": True, "rates": [6, 12],
    }  # fmt: skip
    assert payload["inputs"] == {"tfrecords": ["datum://1"], "checkpoints": [], "extra": ["azure://a/b/c"]}
    assert payload["environment_variables"] == {"A": "1"}
    assert (payload["time_limit"], payload["runtime_config"]) == (3600, {"no_output_timeout": 600})
    assert "environment" not in payload


def test_a_flag_that_nobody_gives_is_not_sent():
    """False is a value: it would reach the stage as --fine_tune_batch_norm=false, against the flag's default."""
    train = read_step(Path(__file__).parents[4] / "valohai.yaml", "train")
    sent = request_for(train, "~1", {"clone_on_cpu": False}, {}).parameters
    assert [name for name in sent if train.parameters[name].type == "flag"] == ["clone_on_cpu"]


def test_values_are_cast(train):
    given = {"steps": "7", "rate": "1e-3", "crop": (65, 65), "logtostderr": "false", "quiet": True, "rates": (1, "2"),
             "note": True}  # fmt: skip
    request = request_for(train, "~1", given, {**DATA, "checkpoints": ["datum://2", "datum://3"]})
    assert request.parameters == {
        "steps": 7, "rate": 0.001, "crop": "65,65", "optimizer": "momentum", "logtostderr": False, "quiet": True,
        "rates": [1, 2], "note": "true",
    }  # fmt: skip
    assert request.inputs["checkpoints"] == ["datum://2", "datum://3"]


@pytest.mark.parametrize(
    ("parameters", "inputs", "text"),
    [
        ({"step": 1}, DATA, "no parameter step .did you mean steps"),
        ({"steps": "many"}, DATA, "steps: many is not an integer"),
        ({"steps": 0}, DATA, "steps: 0 is less than the minimum"),
        ({"optimizer": "sgd"}, DATA, "optimizer: sgd is not among"),
        ({"quiet": "maybe"}, DATA, "quiet: 'maybe' is neither"),
        ({"rate": float("nan")}, DATA, "rate: nan is not a finite"),
        ({}, {}, "input tfrecords needs an address"),
        ({}, {**DATA, "extra": []}, "input extra needs"),
        ({}, {"tfrecords": "/a/path"}, "'/a/path' is no address"),
        ({}, {**DATA, "tfrecord": "datum://1"}, "no input tfrecord .did you mean tfrecords"),
    ],
)
def test_what_the_step_does_not_allow(train, parameters, inputs, text):
    with pytest.raises(InvalidRequest, match=f"step 'Train DeepLab model': .*{text}"):
        request_for(train, "~1", parameters, inputs)


def test_all_problems_are_named_at_once(train):
    with pytest.raises(InvalidRequest, match=r"steps.*optimizer.*tfrecords"):
        request_for(train, "~1", {"steps": 0, "optimizer": "x"}, {})


def test_a_parameter_without_value(yaml):
    with pytest.raises(InvalidRequest, match="needed needs a value"):
        request_for(read_step(yaml, "Export"), "~1", {}, {})


def test_steps_by_their_beginning(yaml):
    assert read_step(yaml, "train d").name == "Train DeepLab model"
    with pytest.raises(InvalidRequest, match="may be any of Train DeepLab model, Train other"):
        read_step(yaml, "train")
    with pytest.raises(InvalidRequest, match="no step; there are: Train DeepLab model"):
        read_step(yaml, "predict")


@pytest.mark.parametrize("content", ["- step: {name: x}", "- [", "x: 1", "- step: 3"])
def test_a_file_that_is_not_valid(tmp_path, content):
    (tmp_path / "v.yaml").write_text(content)
    with pytest.raises(InvalidRequest, match=r"v\.yaml: is not valid"):
        read_step(tmp_path / "v.yaml", "x")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_step(tmp_path / "none.yaml", "x")


def test_further_fields(train):
    request = replace(request_for(train, "~1", {}, DATA), title="t", tags=("K", "run"), priority=0, environment="gpu")
    payload = request.payload("P", "K")
    assert (payload["title"], payload["tags"], payload["priority"], payload["environment"]) == (
        "t", ["K", "run"], 0, "gpu",
    )  # fmt: skip
