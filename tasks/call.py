"""What a stage is asked to do: its flags, its inputs, and the key that they come to."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from deeplab.config import CONFIGS, Flags, ModelDescription, resolve
from deeplab.stage.versions import CODE_VERSIONS
from tasks.store import Identity

# The flag that says where a stage writes, and the file's name where the output is one file.
OUTPUTS: dict[str, tuple[str, str | None]] = {
    "sample": ("output_path", "sample.zip"),
    "fetch": ("output_dir", None),
    "convert": ("output_dir", None),
    "train": ("train_logdir", None),
    "archive": ("output_dir", None),
    "evaluate": ("eval_logdir", None),
    "export": ("export_path", "frozen_inference_graph.pb"),
    "predict": ("output_dir", None),
}


class Source(Protocol):
    """Something that a stage reads, wherever it is."""

    @property
    def digest(self) -> str:
        """Stands for the content."""

    def here(self) -> Path | str:
        """Where a stage on this machine reads it; brought here if need be."""

    def addresses(self) -> list[str]:
        """Where an execution can read it.

        Raises:
            StoreError: if no other machine can.
        """


@dataclass(frozen=True)
class StageCall:
    """What a stage is asked to do.

    Attributes:
        stage: its name.
        values: flags that a person or a preset gave.
        settings: flags that the flow sets, such as the data set.
        inputs: flag name -> what it points to.
        description: the ``model.json`` that supplies the flags nobody gave.
    """

    stage: str
    values: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Source] = field(default_factory=dict)
    description: ModelDescription | None = None

    def given(self) -> dict[str, Any]:
        """All flags but those of inputs and output, without those left empty."""
        flags = {**self.values, **self.settings}
        return {name: value for name, value in flags.items() if value is not None and name not in self.inputs}

    def config(self) -> Flags:
        """The whole configuration, with a dash for every input and for the output.

        Raises:
            ConfigError: for values that the stage would refuse.
        """
        places = dict.fromkeys((*self.inputs, OUTPUTS[self.stage][0]), "-")
        return resolve(CONFIGS[self.stage], {**self.given(), **places}, self.description)

    def identity(self) -> Identity:
        """What decides the products.

        Raises:
            ConfigError: for values that the stage would refuse.
        """
        return Identity(
            stage=self.stage,
            code_version=CODE_VERSIONS[self.stage],
            parameters=self.config().key_parameters(),
            inputs={name: source.digest for name, source in self.inputs.items()},
        )

    def command(self, output: Path) -> list[str]:
        """The command line that makes ``output`` here."""
        inputs = {name: source.here() for name, source in self.inputs.items()}
        flags = {**self.given(), **inputs, OUTPUTS[self.stage][0]: output}
        words = [f"--{name}={flag_text(value)}" for name, value in flags.items()]
        return [sys.executable, "-m", "deeplab", self.stage, *words]


def flag_text(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value)
    return str(value)
