"""The backbones, one family a file; a variant is registered by being in its family's ``VARIANTS``."""

import difflib

from deeplab.backbones import mobilenet_v2, mobilenet_v3, nas, resnet_v1, xception
from deeplab.backbones.record import Backbone
from deeplab.errors import ConfigError

_FAMILIES = (mobilenet_v2, mobilenet_v3, nas, resnet_v1, xception)
BACKBONES: dict[str, Backbone] = {variant.name: variant for family in _FAMILIES for variant in family.VARIANTS}


def get_backbone(name: str) -> Backbone:
    """The variant called ``name``.

    Raises:
        ConfigError: listing the variants, the nearest one first.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"--model_variant={name}: unknown, one of {', '.join(sorted(BACKBONES))}{hint}")
    return BACKBONES[name]


__all__ = ["BACKBONES", "Backbone", "get_backbone"]
