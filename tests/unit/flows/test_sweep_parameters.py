"""What a sweep varies: grids, draws, and values that are refused."""

import pytest

from deeplab.config import validate
from deeplab.errors import ConfigError
from flows.command_line import parse
from flows.sweep_parameters import SweepParameters, labels

BASE = {"preset": "demo"}


def sweep(**values):
    return validate(SweepParameters, {"base": BASE, **values})


def test_a_grid_is_every_combination_in_order():
    given = sweep(vary={"train.base_learning_rate": "0.01,0.05", "train.decoder_output_stride": "4;8"})
    assert labels(given.points) == [
        "base_learning_rate=0.01, decoder_output_stride=4",
        "base_learning_rate=0.01, decoder_output_stride=8",
        "base_learning_rate=0.05, decoder_output_stride=4",
        "base_learning_rate=0.05, decoder_output_stride=8",
    ]
    last = given.trials[-1].values("train")
    assert (last["base_learning_rate"], last["decoder_output_stride"]) == (0.05, (8,))
    assert last["depth_multiplier"] == 0.5, "the rest comes from the preset"


def test_lists_are_parted_by_semicolons_or_come_one_by_one():
    words = ["--base.preset=demo", "--vary.train.train_crop_size=65,65;129,129"]
    given = parse(SweepParameters, "sweep", words)
    assert [trial.values("train")["train_crop_size"] for trial in given.trials] == [(65, 65), (129, 129)]
    words = ["--base.preset=demo", "--vary.train.seed=1", "--vary.train.seed=2"]
    assert [point["train.seed"] for point in parse(SweepParameters, "sweep", words).points] == ["1", "2"]


def test_a_draw_repeats_itself_and_stays_in_its_range():
    values = {"vary": {"train.base_learning_rate": "0.0001..0.1", "train.weight_decay": [1e-5, 1e-4]}, "samples": 40}
    points = sweep(**values).points
    assert points == sweep(**values).points != sweep(**values, seed=1).points
    rates = sorted(point["train.base_learning_rate"] for point in points)
    assert rates[0] >= 0.0001 and rates[-1] <= 0.1
    assert 10 <= sum(rate < 0.00316 for rate in rates) <= 30, "by orders of magnitude"
    assert {point["train.weight_decay"] for point in points} == {1e-5, 1e-4}


def test_whole_ends_give_whole_numbers_and_no_draw_has_doubles():
    points = sweep(vary={"train.train_batch_size": "2..8"}, samples=20).points
    assert all(isinstance(point["train.train_batch_size"], int) for point in points)
    assert sorted(point["train.train_batch_size"] for point in points) == [2, 3, 4, 5, 6, 7, 8]
    assert len(sweep(vary={"train.train_batch_size": "2..8"}, samples=5).points) == 5
    seeds = [point["train.seed"] for point in sweep(vary={"train.seed": "1,2,3,4"}, samples=3).points]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vary": {}}, "--vary.FIELD=VALUES is required"),
        ({"vary": {"train.base_learning_rat": "1"}}, "did you mean train.base_learning_rate"),
        ({"vary": {"export.crop_size": "65,65"}}, "no field that a sweep can vary"),
        ({"vary": {"store": "a,b"}}, "no field that a sweep can vary"),
        ({"vary": {"train.base_learning_rate": "0.1..0.5"}}, "is a range; say with --samples"),
        ({"vary": {"train.base_learning_rate": "0.5..0.1"}, "samples": 2}, "the first end must be less"),
        ({"vary": {"train.base_learning_rate": "a..b"}, "samples": 2}, "are numbers"),
        ({"vary": {"train.base_learning_rate": "1..inf"}, "samples": 2}, "are finite"),
        ({"vary": {"train.seed": "1,1"}}, "a value is there twice"),
        ({"vary": {"train.seed": []}}, "a value is empty"),
        ({"vary": {"train.seed": "1,"}}, "a value is empty"),
        ({"vary": {"train.seed": [None]}}, "a value is empty"),
        ({"vary": {"train.train_batch_size": "2,0"}}, "train.train_batch_size=0: .*train_batch_size=0"),
        ({"vary": {"train.seed": "1"}, "give_up_ratio": 0.5}, "give_up_ratio"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_any_work(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sweep(**values)
    assert "\n" not in str(caught.value)
