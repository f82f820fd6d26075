"""Flows of a single stage on a person's own files: what their parameters share."""

from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from deeplab.data.origin import without_secrets
from flows.parameters import Backend, Section, TrainFlowParameters, ValohaiSection, section_of

_STORE, _AZURE = (TrainFlowParameters.model_fields[name] for name in ("store", "azure_storage"))


class OneStageParameters(Section):
    """Where the stage runs, and where its output goes."""

    store: str = Field(_STORE.default, description=_STORE.description)
    azure_storage: str | None = Field(None, description=_AZURE.description)
    backend: Backend = Field("local", description="Where the stage runs: on this machine, or as a Valohai execution.")
    valohai: ValohaiSection = Field(default_factory=ValohaiSection)

    def runs_remotely(self, stage: str) -> bool:
        """Whether a stage runs as an execution."""
        return self.backend == "valohai"

    def environment(self, stage: str) -> str | None:
        """The machine type of the execution; None: the step's or the project's."""
        return self.valohai.environment


def last_part(place: str) -> str:
    """The name in a path or an address, without the signature that an address may carry."""
    shown = without_secrets(place)
    return Path(shown).name or shown


def plain_section(stage: str, *left_out: str) -> type[Section]:
    """A stage's section for a network from anywhere: with the fields that describe it, where no ``model.json`` does.

    Args:
        stage: the stage's name.
        left_out: flags that the flow itself supplies.
    """
    section = section_of(stage, trained=False, left_out=left_out)
    fields: dict[str, Any] = {
        name: (info.annotation, info)
        for name, info in section.model_fields.items()
        if name not in ("backend", "environment")
    }
    return create_model(f"Own{stage.capitalize()}Section", __base__=Section, __doc__=section.__doc__, **fields)
