"""One source of configuration: the models behind the command line, the run form and ``model.json``."""

from deeplab.config.base import Flags, validate
from deeplab.config.description import ClassDescription, ModelDescription, resolve
from deeplab.config.model import ModelConfig, PreprocessingConfig
from deeplab.config.stages import (
    CONFIGS,
    ArchiveConfig,
    ConvertConfig,
    EvaluationConfig,
    ExportConfig,
    FetchConfig,
    InspectConfig,
    PredictConfig,
    SampleConfig,
    SummaryConfig,
    TrainingConfig,
)

__all__ = [
    "CONFIGS",
    "ArchiveConfig",
    "ClassDescription",
    "ConvertConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FetchConfig",
    "Flags",
    "InspectConfig",
    "ModelConfig",
    "ModelDescription",
    "PredictConfig",
    "PreprocessingConfig",
    "SampleConfig",
    "SummaryConfig",
    "TrainingConfig",
    "resolve",
    "validate",
]
