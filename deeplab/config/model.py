"""What the network is: the original's flags of ``common.py`` plus the output stride and its rates."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from deeplab.config.base import Flags, flag
from deeplab.config.dense_prediction_cell import Cell, check_inputs, read_cell
from deeplab.config.network_rules import check_network


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


OutputStride = Annotated[Literal[8, 16, 32], BeforeValidator(_number)]


class ModelConfig(Flags):
    """Backbone, head and decoder. Fields marked ``weights`` decide which variables exist."""

    model_variant: str = flag(
        "mobilenet_v2", "Backbone; also picks pixel normalisation and padding colour.", weights=True
    )
    depth_multiplier: float = flag(1.0, "Width multiplier of the MobileNet families.", weights=True, gt=0, le=8)
    divisible_by: int | None = flag(
        None,
        "Round MobileNet v2 widths to multiples of this; empty: 8 when depth_multiplier is 1, else 1.",
        weights=True,
        ge=1,
    )
    output_stride: OutputStride = flag(16, "Ratio of input to backbone-output resolution.")
    atrous_rates: tuple[int, ...] | None = flag(
        None, "ASPP dilation rates (6 12 18 for stride 16, 12 24 36 for stride 8).", repeated=True
    )
    multi_grid: tuple[int, ...] | None = flag(None, "Extra dilation factors of the last block's units.", repeated=True)
    add_image_level_feature: bool = flag(True, "Add the globally pooled branch to ASPP.", weights=True)
    image_pooling_crop_size: tuple[int, int] | None = flag(
        None, "height,width whose stride-reduced size is the pooling window; empty: the crop size."
    )
    image_pooling_stride: tuple[int, int] = flag((1, 1), "height,width stride of the image-level pooling.")
    aspp_with_batch_norm: bool = flag(
        True,
        "ASPP block with batch norm; false: DeepLab v2 style, the classifier itself is atrous.",
        weights=True,
    )
    aspp_with_separable_conv: bool = flag(True, "3x3 ASPP branches are depthwise separable.", weights=True)
    aspp_with_concat_projection: bool = flag(True, "1x1 projection after concatenating the branches.", weights=True)
    aspp_with_squeeze_and_excitation: bool = flag(
        False, "The pooled branch gates the ASPP output instead of joining it.", weights=True
    )
    image_se_uses_qsigmoid: bool = flag(False, "That gate is relu6(x + 3) * 0.16667 instead of the sigmoid.")
    aspp_convs_filters: int = flag(256, "Channels of every ASPP branch and of the projection.", weights=True, ge=1)
    decoder_output_stride: tuple[int, ...] | None = flag(
        None,
        "Strides (descending) at which the decoder merges low-level features; empty: no decoder.",
        weights=True,
    )
    decoder_use_separable_conv: bool = flag(True, "Decoder convolutions are depthwise separable.", weights=True)
    decoder_use_sum_merge: bool = flag(False, "The decoder adds features instead of concatenating.", weights=True)
    decoder_filters: int = flag(256, "Channels of the decoder convolutions.", weights=True, ge=1)
    decoder_output_is_logits: bool = flag(
        False, "The decoder's output is the logits; decoder_filters must equal the class count.", weights=True
    )
    logits_kernel_size: int = flag(1, "Kernel of the final classifier convolution.", weights=True, ge=1)
    use_bounded_activation: bool = flag(False, "ReLU6 and clipping in Xception, ASPP and decoder.")
    image_pyramid: tuple[float, ...] | None = flag(
        None, "Input scales run through the shared network whose logits are merged.", repeated=True
    )
    merge_method: Literal["max", "avg"] = flag("max", "How the logits of several image_pyramid scales merge.")
    prediction_with_upsampled_logits: bool = flag(
        True, "Upsample logits, then argmax; false: argmax at low resolution, then nearest neighbour."
    )
    dense_prediction_cell_json: str = flag(
        "",
        "JSON file of a dense prediction cell that replaces ASPP, or the published one's name.",
        key=False,
        weights=True,
    )
    dense_prediction_cell: Cell | None = flag(
        None, "The cell itself, as JSON; read from dense_prediction_cell_json where that is given.", weights=True
    )
    nas_stem_output_num_conv_filters: int = flag(20, "Base filter count of NAS cells.", weights=True, ge=1)
    nas_use_classification_head: bool = flag(False, "NAS: append the ImageNet classification head.", weights=True)
    nas_remove_os32_stride: bool = flag(False, "NAS: keep the stride-32 cells at stride 16.")
    batch_norm_decay: float = flag(
        0.9997, "Accepted for the original's sake; every batch norm has a constant of its own.", key=False
    )

    @model_validator(mode="before")
    @classmethod
    def _read_cell(cls, values: Any) -> Any:
        """Put a cell's content in place of its file's name: a description of the model must not hold a path."""
        if not isinstance(values, dict):
            return values
        name, cell = values.get("dense_prediction_cell_json"), values.get("dense_prediction_cell")
        if name:
            return {**values, "dense_prediction_cell_json": "", "dense_prediction_cell": read_cell(name)}
        return {**values, "dense_prediction_cell": json.loads(cell)} if isinstance(cell, str) and cell else values

    @model_validator(mode="after")
    def _check_network(self) -> "ModelConfig":
        check_network(self)
        check_inputs(self.dense_prediction_cell or ())
        if self.dense_prediction_cell is not None and self.output_stride > 16:
            raise ValueError(
                f"output_stride={self.output_stride}: a dense prediction cell has rates for 16; use 8 or 16"
            )
        return self


class PreprocessingConfig(Flags):
    """How an image is resized before anything else happens to it (sizes in pixels)."""

    min_resize_value: int | None = flag(None, "Target length of the shorter side; empty: no resize.", ge=1)
    max_resize_value: int | None = flag(None, "Upper bound of the longer side after that resize.", ge=1)
    resize_factor: int | None = flag(None, "Sides become a multiple of this plus one; the output stride.", ge=1)
    keep_aspect_ratio: bool = flag(True, "Accepted for the original's sake; nothing reads it.", key=False)

    @property
    def largest_side(self) -> int | None:
        """The longest side, in pixels, that a resize can leave; None where there is no resize or no bound."""
        if self.max_resize_value is None:
            return None
        return self.max_resize_value - (self.max_resize_value - 1) % (self.resize_factor or 1)

    @model_validator(mode="after")
    def _check_resize(self) -> "PreprocessingConfig":
        if self.max_resize_value is not None and self.min_resize_value is None:
            raise ValueError(
                f"max_resize_value={self.max_resize_value} needs min_resize_value too; give both, the same for "
                "'longest side at most', or neither"
            )
        return self


class SeedConfig(Flags):
    """What every stage has."""

    seed: int = flag(0, "Seed of everything random in the stage.", ge=0, lt=2**31)
