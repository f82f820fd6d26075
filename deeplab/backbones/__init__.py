"""The backbones, one family a file; a variant is registered by being in its family's ``VARIANTS``."""

from deeplab.backbones import mobilenet_v2, mobilenet_v3, nas, resnet_v1, xception
from deeplab.backbones.record import Backbone

_FAMILIES = (mobilenet_v2, mobilenet_v3, nas, resnet_v1, xception)
BACKBONES: dict[str, Backbone] = {variant.name: variant for family in _FAMILIES for variant in family.VARIANTS}

__all__ = ["BACKBONES", "Backbone"]
