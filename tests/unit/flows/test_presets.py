"""Each preset is the recipe of the original's documentation, and a run that every stage accepts."""

import pytest

from deeplab.config import CONFIGS, resolve, validate
from deeplab.config.advice import rates_of_another_stride
from deeplab.data.datasets import get_dataset
from deeplab.zoo.catalogue import read_catalogue
from flows import presets
from flows.parameters import SECTIONS, TrainFlowParameters

# Preset -> training steps, batch, training crop, evaluation crop, learning rate, batch norm trained.
RECIPES = {
    "ade20k_mobilenet_v2": (150_000, 16, (257, 257), (257, 257), 0.007, True),
    "ade20k_xception_65": (150_000, 4, (513, 513), (513, 513), 0.0001, False),
    "cityscapes_mobilenet_v2": (90_000, 16, (769, 769), (1025, 2049), 0.007, True),
    "cityscapes_xception_65": (90_000, 16, (769, 769), (1025, 2049), 0.007, True),
    "demo": (400, 8, (129, 129), (257, 257), 0.05, True),
    "pascal_voc_mobilenet_v2": (30_000, 16, (513, 513), (513, 513), 0.007, True),
    "pascal_voc_xception_65": (30_000, 16, (513, 513), (513, 513), 0.007, True),
}
# Preset -> the published checkpoint with the same network.
PUBLISHED = {
    "ade20k_mobilenet_v2": "mobilenetv2_ade20k_train",
    "ade20k_xception_65": "xception65_ade20k_train",
    "cityscapes_mobilenet_v2": "mobilenetv2_coco_cityscapes_trainfine",
    "cityscapes_xception_65": "xception65_cityscapes_trainfine",
    "pascal_voc_mobilenet_v2": "mobilenetv2_coco_voc_trainaug",
    "pascal_voc_xception_65": "xception65_coco_voc_trainaug",
}


def run(name):
    source = {} if name == "demo" else {"fetch": {"source": "data.zip"}}
    return validate(TrainFlowParameters, {"preset": name, **source})


def test_every_preset_has_its_recipe_here():
    assert sorted(RECIPES) == presets.names()
    assert sorted(PUBLISHED) == sorted(set(RECIPES) - {"demo"})


@pytest.mark.parametrize("name", RECIPES)
def test_hyper_parameters(name):
    steps, batch, crop, eval_crop, rate, batch_norm = RECIPES[name]
    given = run(name)
    train = resolve(CONFIGS["train"], {"dataset_dir": "-", "train_logdir": "-", **given.values("train")}, None)
    assert (train.training_number_of_steps, train.train_batch_size, train.train_crop_size) == (steps, batch, crop)
    assert (train.base_learning_rate, train.fine_tune_batch_norm) == (rate, batch_norm)
    assert given.values("evaluate")["eval_crop_size"] == given.values("export")["crop_size"] == eval_crop
    assert batch >= 12 or not batch_norm or name == "demo"
    assert rates_of_another_stride(train) is None


@pytest.mark.parametrize("name", RECIPES)
def test_crops_suit_the_output_stride(name):
    given = run(name)
    stride = given.values("train")["output_stride"]
    crops = (given.values("train")["train_crop_size"], given.values("evaluate")["eval_crop_size"])
    assert all(side % stride == 1 for crop in crops for side in crop)
    assert given.values("train").get("resize_factor", stride) == stride


@pytest.mark.parametrize("name", PUBLISHED)
def test_network_is_the_published_one(name):
    flags = read_catalogue().find(PUBLISHED[name]).flags
    given = run(name).values("train")
    for field in ("model_variant", "depth_multiplier"):
        assert given.get(field) == flags.get(field)
    assert list(given.get("decoder_output_stride", ())) == list(flags.get("decoder_output_stride", ()))
    # Rates are those of the stride that the published score was measured at.
    per_stride = [rate * flags.get("output_stride", 16) for rate in flags.get("atrous_rates", ())]
    assert [rate * given["output_stride"] for rate in given.get("atrous_rates", ())] == per_stride
    assert presets.load(name)["dataset"] == read_catalogue().find(PUBLISHED[name]).dataset


@pytest.mark.parametrize("name", RECIPES)
def test_splits_are_those_of_the_data_set(name):
    given = run(name)
    splits = get_dataset(presets.load(name)["dataset"]).layout.splits
    for stage, field in (("train", "train_split"), ("evaluate", "eval_split"), ("predict", "images_split")):
        split = given.values(stage).get(field, CONFIGS[stage].model_fields[field].default)
        assert split in splits and not splits[split].on_request


def test_presets_name_only_fields_of_the_flow():
    for name in RECIPES:
        for section, values in presets.load(name).items():
            assert section == "dataset" or set(values) <= set(SECTIONS[section].model_fields)
