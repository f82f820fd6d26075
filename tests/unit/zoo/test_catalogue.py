import pytest

from deeplab.backbones import BACKBONES
from deeplab.config import ModelConfig, PreprocessingConfig, validate
from deeplab.data.datasets import get_dataset
from deeplab.errors import ConfigError
from deeplab.zoo.catalogue import read_catalogue

ENTRIES = read_catalogue().checkpoints
MODELS = [entry for entry in ENTRIES if entry.kind == "segmentation"]
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
each_model = pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.id)


def test_all_published_checkpoints_are_there_once():
    assert (len(ENTRIES), len(MODELS)) == (22, 16)
    assert len({entry.id for entry in ENTRIES} | {entry.archive for entry in ENTRIES}) == 44
    assert {entry.dataset for entry in MODELS} == {"pascal_voc_seg", "cityscapes", "ade20k"}


@each_entry
def test_flags_are_those_of_a_network(entry):
    assert not set(entry.flags) - {*ModelConfig.model_fields, *PreprocessingConfig.model_fields}
    network = validate(ModelConfig, entry.flags, only_known=True)
    validate(PreprocessingConfig, entry.flags, only_known=True)
    assert network.model_variant in BACKBONES


@each_model
def test_a_model_fits_its_data_set(entry):
    assert entry.num_classes == get_dataset(entry.dataset).num_classes
    assert not entry.network.decoder_output_is_logits or entry.network.decoder_filters == entry.num_classes
    assert entry.network.largest_side in (None, max(entry.crop_size))


@each_model
def test_the_flags_are_those_of_the_first_score(entry):
    assert entry.scores[0].output_stride == entry.network.output_stride
    assert all(score.flips == (len(score.scales) > 1) for score in entry.scores)
    for rate in entry.network.atrous_rates or ():
        assert rate * entry.network.output_stride in (6 * 16, 12 * 16, 18 * 16)


@each_model
def test_the_description_says_all_that_later_stages_ask(entry):
    description = entry.description()
    assert validate(ModelConfig, description.fields, only_known=True) == validate(
        ModelConfig, entry.flags, only_known=True
    )
    assert (description.dataset, description.num_classes) == (entry.dataset, entry.num_classes)
    assert (description.crop_size, len(description.classes)) == (entry.crop_size, entry.num_classes)


def test_a_backbone_has_no_description():
    assert read_catalogue().find("xception_65_imagenet").description() is None


def test_facts_of_single_rows():
    find = read_catalogue().find
    assert find("xception71_dpc_cityscapes_trainval").network.dense_prediction_cell is not None
    assert find("mobilenetv2_dm05_coco_voc_trainval").network.depth_multiplier == 0.5
    assert find("mobilenetv3_small_cityscapes_trainfine").network.aspp_with_concat_projection is False
    assert find("edgetpu_deeplab").megabytes is None
    best = find("xception65_ade20k_train").scores[0]
    assert (best.miou, best.pixel_accuracy, best.scales[0], best.scales[-1]) == (45.65, 82.52, 0.5, 1.75)


def test_rates_follow_the_output_stride():
    entry = read_catalogue().find("xception65_coco_voc_trainaug")
    assert entry.flags_at(16) == {}
    assert entry.flags_at(8) == {"output_stride": 8, "atrous_rates": (12, 24, 36)}
    assert read_catalogue().find("edgetpu_deeplab").flags_at(16) == {"output_stride": 16}


@pytest.mark.parametrize(
    "name",
    [
        "xception65_ade20k_train",
        "deeplabv3_xception_ade20k_train_2018_05_29",
        "deeplabv3_xception_ade20k_train_2018_05_29.tar.gz",
    ],
)
def test_both_names_of_a_checkpoint_work(name):
    assert read_catalogue().find(name).id == "xception65_ade20k_train"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xception_65_ade20k", "'xception_65_ade20k'; did you mean xception65_ade20k_train?"),
        ("deeplabv3_pascal_trainval_2018_01_05", "did you mean deeplabv3_pascal_trainval_2018_01_04"),
        ("?", "`deeplab zoo list` names them all"),
    ],
)
def test_an_unknown_name_tells_the_nearest(name, message):
    with pytest.raises(ConfigError) as caught:
        read_catalogue().find(name)
    assert message in str(caught.value)


def test_a_data_set_without_checkpoints_is_an_error():
    assert {entry.id for entry in read_catalogue().of_dataset("ade20k")} == {
        "mobilenetv2_ade20k_train",
        "xception65_ade20k_train",
    }
    with pytest.raises(
        ConfigError, match="--dataset=ade: no published checkpoint; one of ade20k, cityscapes, imagenet"
    ):
        read_catalogue().of_dataset("ade")
