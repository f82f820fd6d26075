"""Which networks cannot be: rules over several fields, checked before any work and without TensorFlow.

Every function raises ValueError, for pydantic to report, with what was given, what is allowed and what to do.
"""

import difflib
from typing import TYPE_CHECKING

from deeplab.config.variants import VARIANTS

if TYPE_CHECKING:
    from deeplab.config.model import ModelConfig

# Where nas_remove_os32_stride keeps the deepest cells.
_KEPT_STRIDE = 16


def check_network(config: "ModelConfig") -> None:
    """The rules that need nothing but the network's own fields."""
    _check_variant(config.model_variant)
    _check_decoder(config)
    _check_multi_grid(config)
    _check_classifier(config)
    _check_gate(config)
    _check_feature_stride(config)


def _check_variant(name: str) -> None:
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"--model_variant={name}: unknown, one of {', '.join(VARIANTS)}{hint}")


def _check_decoder(config: "ModelConfig") -> None:
    strides, offered = config.decoder_output_stride or (), VARIANTS[config.model_variant].decoder_strides
    given = f"--decoder_output_stride={_list(strides)}"
    for stride in strides:
        if stride not in offered:
            there = f"it has {_list(offered, ', ')}" if offered else "it has none, leave the flag out"
            raise ValueError(f"{given}: {config.model_variant} has no end point at stride {stride}; {there}")
    if list(strides) != sorted(set(strides), reverse=True):
        raise ValueError(f"{given}: give each stride once, the largest first")


def _check_multi_grid(config: "ModelConfig") -> None:
    wanted = VARIANTS[config.model_variant].multi_grid
    if config.multi_grid is not None and wanted is not None and len(config.multi_grid) != wanted:
        raise ValueError(
            f"--multi_grid={_list(config.multi_grid)}: {config.model_variant} takes {wanted} values, such as "
            f"{_list((1, 2, 4)[:wanted])}"
        )


def _check_classifier(config: "ModelConfig") -> None:
    atrous_classifier = not config.aspp_with_batch_norm and bool(config.atrous_rates)
    if config.logits_kernel_size != 1 and not atrous_classifier:
        raise ValueError(
            f"--logits_kernel_size={config.logits_kernel_size} needs --aspp_with_batch_norm=false and --atrous_rates; "
            "use 1"
        )
    if config.decoder_output_is_logits and not config.decoder_output_stride:
        raise ValueError("--decoder_output_is_logits needs --decoder_output_stride; give both or neither")


def _check_gate(config: "ModelConfig") -> None:
    gated = _pools_the_image(config) and config.aspp_with_squeeze_and_excitation
    if gated and config.atrous_rates and not config.aspp_with_concat_projection:
        raise ValueError(
            f"--aspp_with_squeeze_and_excitation with --atrous_rates={_list(config.atrous_rates)}: the gate has the "
            "channels of one branch, so several need --aspp_with_concat_projection=true; or leave the rates out"
        )


def _check_feature_stride(config: "ModelConfig") -> None:
    stride = feature_stride(config)
    if stride == config.output_stride or not _pools_the_image(config):
        return
    given = f"--output_stride={config.output_stride}: "
    remedy = "or leave the image-level feature out by --add_image_level_feature=false"
    if config.nas_remove_os32_stride and stride == _KEPT_STRIDE:
        raise ValueError(
            f"{given}--nas_remove_os32_stride keeps the features of {config.model_variant} at stride {stride}, where "
            f"the image-level feature does not fit them; leave that flag out, {remedy}"
        )
    raise ValueError(
        f"{given}{config.model_variant} without its classification head ends at stride {stride}, where the image-level "
        f"feature does not fit; use --output_stride={stride}, --nas_use_classification_head, {remedy}"
    )


def feature_stride(config: "ModelConfig") -> int:
    """Ratio of the input's to the backbone features' resolution; searched networks may not follow ``output_stride``."""
    ends_at = VARIANTS[config.model_variant].ends_at
    if ends_at is not None:
        return config.output_stride if config.nas_use_classification_head else ends_at
    if config.model_variant.startswith("nas_") and config.nas_remove_os32_stride:
        return min(config.output_stride, _KEPT_STRIDE)
    return config.output_stride


def _pools_the_image(config: "ModelConfig") -> bool:
    """Whether the head has an image-level branch."""
    return config.aspp_with_batch_norm and config.dense_prediction_cell is None and config.add_image_level_feature


def check_pooling(config: "ModelConfig", crop_flag: str, crop_size: tuple[int, int]) -> None:
    """The window of the image-level pooling fits into a crop, both in units of the output stride."""
    pooling, stride = config.image_pooling_crop_size, config.output_stride
    if pooling is None or not _pools_the_image(config):
        return
    if any((window - 1) // stride > (side - 1) // stride for window, side in zip(pooling, crop_size, strict=True)):
        raise ValueError(
            f"--image_pooling_crop_size={_list(pooling)} exceeds --{crop_flag}={_list(crop_size)}; give at most the "
            "crop, or a larger crop"
        )


def check_classes(config: "ModelConfig", num_classes: int) -> None:
    """A decoder whose output is the logits has as many channels as there are classes."""
    if config.decoder_output_is_logits and config.decoder_filters != num_classes:
        raise ValueError(
            f"--decoder_output_is_logits needs decoder_filters ({config.decoder_filters}) to equal the number of "
            f"classes ({num_classes}); give --decoder_filters={num_classes}"
        )


def _list(values: tuple[int, ...], separator: str = ",") -> str:
    return separator.join(str(value) for value in values)
