"""Starting values from another checkpoint: what is loaded, what starts afresh, what goes unused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from deeplab.config import TrainingConfig
from deeplab.errors import CheckpointError
from deeplab.training.optimizers import extra_layer_scopes
from deeplab.training.trainer import GLOBAL_STEP, Trainer

Array = npt.NDArray[Any]
# A checkpoint with fewer of the backbone's variables belongs to another one. Relatives share many: a plain ResNet has
# 94 % of its beta form's.
_BACKBONE_SHARE = 0.5


@dataclass(frozen=True)
class InitializationReport:
    """Names by fate."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def initialize(
    trainer: Trainer, values: Mapping[str, Array], config: TrainingConfig, source: str
) -> InitializationReport:
    """Load what the rules allow: never the global step; the extra layers only if ``initialize_last_layer``.

    Args:
        trainer: receives the values.
        values: the checkpoint's content.
        config: the rules.
        source: the checkpoint's path, for messages.

    Raises:
        CheckpointError: if a variable has another shape there, or it belongs to another backbone.
    """
    excluded = () if config.initialize_last_layer else extra_layer_scopes(config)
    current = trainer.values()
    wanted = {name: value for name, value in current.items() if name != GLOBAL_STEP and not name.startswith(excluded)}
    found = {name: values[name] for name in wanted if name in values}
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(_mismatch(name, value.shape, wanted[name].shape, source))
    _refuse_another_backbone(trainer, found, config, source)
    trainer.load(found)
    fresh = tuple(name for name in trainer.store.variables if name not in found)
    unused = tuple(name for name in values if name not in found and name != GLOBAL_STEP)
    return InitializationReport(tuple(found), fresh, unused)


def _refuse_another_backbone(trainer: Trainer, found: Mapping[str, Array], config: TrainingConfig, source: str) -> None:
    prefix = f"{trainer.network.backbone.name_scope}/"
    wanted = [name for name in trainer.store.variables if name.startswith(prefix)]
    share = sum(name in found for name in wanted) / len(wanted)
    if share < _BACKBONE_SHARE:
        raise CheckpointError(
            f"{source}: belongs to another backbone: only {share:.0%} of the {len(wanted)} variables of "
            f"{config.model_variant} would load; pass its --model_variant, or another checkpoint"
        )


def _mismatch(name: str, there: tuple[int, ...], here: tuple[int, ...], source: str) -> str:
    if name.startswith("logits/"):
        return (
            f"{source}: was trained for {there[-1]} classes, this data set has {here[-1]} ({name}); "
            "start the last layer afresh with --initialize_last_layer=false --last_layers_contain_logits_only=true"
        )
    return f"{source}: {name} has shape {list(there)} there and {list(here)} here; check the model flags"
