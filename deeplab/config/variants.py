"""What a configuration's checks know of the backbones, without TensorFlow and so before any work.

``deeplab.backbones`` holds the code; a test compares its records with this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Variant:
    """A backbone as the checks see it.

    Attributes:
        decoder_strides: strides whose features a decoder can merge.
        multi_grid: how many rates ``multi_grid`` has to give; None where the option has no effect.
        ends_at: stride of the features where that does not follow the output stride.
    """

    decoder_strides: tuple[int, ...] = (4, 8, 16)
    multi_grid: int | None = None
    ends_at: int | None = None


_BOTTLENECK, _LITE = Variant(multi_grid=3), Variant(multi_grid=2)
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "mobilenet_edgetpu": Variant(decoder_strides=()),
        "mobilenet_v2": Variant(),
        "mobilenet_v3_large_seg": Variant(),
        "mobilenet_v3_small_seg": Variant(),
        "nas_hnasnet": Variant(ends_at=8),
        "nas_pnasnet": Variant(),
        "resnet_v1_18": _LITE,
        "resnet_v1_18_beta": _LITE,
        "resnet_v1_50": _BOTTLENECK,
        "resnet_v1_50_beta": _BOTTLENECK,
        "resnet_v1_101": _BOTTLENECK,
        "resnet_v1_101_beta": _BOTTLENECK,
        "xception_41": _BOTTLENECK,
        "xception_65": _BOTTLENECK,
        "xception_71": _BOTTLENECK,
    }
)
