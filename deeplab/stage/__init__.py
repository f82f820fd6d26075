"""The contract of a stage: what it prints, how it stops, what it leaves and how that is sealed."""

from deeplab.stage.manifest import Manifest, Output, manifest_path
from deeplab.stage.output import OutputFile, OutputFolder
from deeplab.stage.reporting import Progress, emit_metrics
from deeplab.stage.stop import stop_requested

__all__ = [
    "Manifest",
    "Output",
    "OutputFile",
    "OutputFolder",
    "Progress",
    "emit_metrics",
    "manifest_path",
    "stop_requested",
]
