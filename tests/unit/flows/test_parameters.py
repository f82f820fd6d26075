import pytest

from deeplab.config import CONFIGS, validate
from deeplab.errors import ConfigError
from flows import presets
from flows.parameters import SECTIONS, TrainFlowParameters

SOURCE = {"fetch": {"source": "data.zip"}}


def parameters(**values):
    return validate(TrainFlowParameters, values)


def test_every_section_is_a_part_of_its_stage():
    for stage, section in SECTIONS.items():
        for name, info in section.model_fields.items():
            if name in ("backend", "environment"):
                continue  # where a stage runs is no flag of it
            origin = CONFIGS[stage].model_fields[name]
            assert info.default is None, f"{stage}.{name} has a default: a preset could not supply it"
            assert (info.description or "").startswith(origin.description)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_names_a_data_set_and_a_network(name):
    content = presets.load(name)
    assert "dataset" in content
    assert "model_variant" in content["train"]
    source = {} if content["dataset"] == "sample" else SOURCE
    assert parameters(preset=name, **source).title == f"{content['dataset']} {content['train']['model_variant']}"


def test_a_run_is_named_after_data_set_network_and_place():
    store = {"store": "az://container/store"}
    assert parameters(preset="demo").run_name == "sample mobilenet_v2, local"
    assert parameters(preset="demo", label="seed=1").run_name == "seed=1: sample mobilenet_v2, local"
    assert parameters(preset="demo", backend="valohai", **store).run_name == "sample mobilenet_v2, Valohai"
    mixed = parameters(preset="demo", train={"backend": "valohai"}, predict={"backend": "valohai"}, **store)
    assert mixed.run_name == "sample mobilenet_v2, Valohai: train predict"


def test_given_wins_over_preset_and_preset_over_default():
    given = parameters(preset="demo", train={"train_batch_size": 3, "train_crop_size": ""})
    assert given.values("train")["train_batch_size"] == 3
    assert given.values("train")["train_crop_size"] == (129, 129)
    assert "momentum" not in given.values("train"), "what nobody gave is left to the stage"
    assert given.dataset_name == "sample"
    assert parameters(preset="demo", dataset="ade20k", **SOURCE).dataset_name == "ade20k"
    assert parameters(**SOURCE).dataset_name == "ade20k"


def test_only_what_was_given_is_kept():
    given = parameters(preset="demo", train={"train_batch_size": "3"})
    assert given.model_dump(mode="json")["train"] == {"train_batch_size": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "--fetch.source is required for the data set ade20k"),
        ({"preset": "dmo"}, "--preset=dmo: unknown; did you mean demo?"),
        ({"preset": "zzz"}, "--preset=zzz: unknown; one of ade20k_mobilenet_v2, ade20k_xception_65, "),
        ({"preset": "demo", "dataset": "ade2k"}, "--dataset=ade2k: unknown data set; one of ade20k"),
        ({"preset": "demo", "train": {"train_batch_size": 0}}, "--train.train_batch_size=0: input should be greater"),
        ({"preset": "demo", "train": {"min_scale_factor": 9}}, "train: min_scale_factor=9.0 exceeds"),
        ({"preset": "demo", "train": {"num_clones": 2}}, "train: num_clones=2 is not supported"),
        ({"preset": "demo", "evaluate": {"quantize_delay_step": 5}}, "evaluate: quantize_delay_step=5"),
        ({"preset": "demo", "evaluate": {"model_variant": "xception_65"}}, "--evaluate.model_variant=xception_65"),
        ({"preset": "demo", "train": {"atrous_rates": [6]}, "export": {"atrous_rates": [6, 12]}}, "1 .*give as many"),
        ({**SOURCE, "fetch": {"source": "x", "sha256": "abc"}}, "--fetch.sha256=abc"),
    ],
)
def test_bad_values_are_refused_before_any_work(values, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as caught:
        parameters(**values)
    assert "\n" not in str(caught.value)


def test_fields_that_may_stay_empty_are_plain_in_the_run_form():
    """Prefect draws a field that may be null as a switch, and sends every switch of a yes or no as no."""
    schema = TrainFlowParameters.model_json_schema()
    train = schema["$defs"]["TrainSection"]["properties"]
    for field in (*schema["properties"].values(), *train.values()):
        assert "null" not in str(field)
    assert train["train_batch_size"]["type"] == "integer" and train["train_batch_size"]["minimum"] == 1
    assert train["fine_tune_batch_norm"]["enum"] == [True, False] and "type" not in train["fine_tune_batch_norm"]
    assert not [name for name, field in train.items() if "default" in field]
    assert schema["properties"]["store"]["default"] == "deeplab-store"


def test_what_most_runs_set_comes_first():
    assert next(iter(SECTIONS["train"].model_fields)) == "model_variant"
    assert next(iter(SECTIONS["fetch"].model_fields)) == "source"
    assert list(SECTIONS["train"].model_fields)[-3:] == ["seed", "backend", "environment"]


def test_values_of_a_run_form_reach_the_same_parameters():
    """The form sends JSON: lists, null for empty fields, text with commas."""
    form = {
        "preset": "demo",
        "dataset": None,
        "train": {"train_crop_size": [65, 65], "atrous_rates": "6,12", "decoder_output_stride": 8, "seed": None},
        "evaluate": None,
    }
    given = parameters(**form)
    assert given.values("train")["train_crop_size"] == (65, 65)
    assert given.values("train")["atrous_rates"] == (6, 12)
    assert given.values("train")["decoder_output_stride"] == (8,)
    assert "seed" not in given.values("train")


REMOTE = {"backend": "valohai"}
THERE = {"fetch": {"source": "https://example.org/x.zip"}, **REMOTE}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "demo", "train": REMOTE}, "train.backend=valohai needs what convert leaves on this machine"),
        (
            {**SOURCE, "convert": REMOTE, "evaluate": REMOTE, "fetch": {"source": "https://example.org/x.zip"}},
            "evaluate.backend=valohai needs what train leaves .* or --train.backend=valohai",
        ),
        ({"preset": "demo", **REMOTE}, "convert.backend=valohai needs an archive that Valohai can read"),
        ({**SOURCE, **REMOTE}, "convert.backend=valohai needs an archive that Valohai can read"),
        ({**THERE, "predict": {"images": "photos"}}, "predict.images=photos can only be read on this machine"),
        ({**THERE, "train": {"tf_initial_checkpoint": "run"}}, "train.tf_initial_checkpoint=run can only be read"),
    ],
)
def test_what_an_execution_could_not_read_is_refused_before_the_run(values, message):
    with pytest.raises(ConfigError, match=message):
        parameters(**values)
    with pytest.raises(ConfigError, match=message):
        parameters(**values, store="file:///mnt/store")
    parameters(**values, store="az://container/store")


def test_places_of_stages():
    given = parameters(**{"fetch": {"source": "https://example.org/x.zip"}, **REMOTE, "predict": {"backend": "local"}},
                       valohai={"environment": "small"}, train={"environment": "gpu"})  # fmt: skip
    assert given.runs_remotely("train") and not given.runs_remotely("predict") and not given.runs_remotely("archive")
    assert (given.environment("train"), given.environment("export")) == ("gpu", "small")
    assert "backend" not in given.values("train") and "environment" not in given.values("train")
