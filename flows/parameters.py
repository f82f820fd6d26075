"""The parameters of the training flow: its command line, its ``--config`` file and the run form of Prefect's UI.

Every section is derived from a stage's configuration model: the same names, bounds and descriptions, but without
what the flow itself supplies (paths, the data set), and with "empty" as every default. Empty means not given: the
preset, then ``model.json``, then the original's default decides.
"""

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_serializer, model_validator
from pydantic_core import PydanticUndefined

from deeplab.config import CONFIGS, Flags, ModelConfig, ModelDescription, PreprocessingConfig, TrainingConfig, resolve
from deeplab.config.dataset_name import is_dataset_file
from deeplab.config.variants import VARIANTS
from deeplab.data.datasets import Dataset, get_dataset
from deeplab.errors import ConfigError
from flows import presets
from flows.form import Form
from tasks.places import DEFAULT_STORE
from tasks.sources import is_url, lies_here
from tasks.valohai.layout import CODE

_DEFAULT_DATASET = "ade20k"
# The data set that the flow draws itself when no source is given.
_DRAWN_DATASET = "sample"
# Flags that the flow supplies: the data set, and where each stage reads and writes.
_SUPPLIED: dict[str, set[str]] = {
    "sample": {"output_path"},
    "fetch": {"output_dir", "seed"},
    "convert": {
        "dataset",
        "source",
        "train_image_folder",
        "train_image_label_folder",
        "val_image_folder",
        "val_image_label_folder",
        "output_dir",
        "archive",
    },
    "train": {"dataset", "dataset_dir", "train_logdir", "dense_prediction_cell"},
    "evaluate": {"dataset", "dataset_dir", "checkpoint_dir", "eval_logdir"},
    "export": {"dataset", "checkpoint_path", "export_path"},
    "predict": {"dataset", "model", "output_dir"},
}
# Stages whose network is the trained one.
_AFTER_TRAINING = {"evaluate", "export", "predict"}
# Their default is the crop of the training.
_CROPS = {"eval_crop_size", "crop_size"}
_WITHOUT_EFFECT = "Accepted for the original's sake"
# What a person looks for in a section of a hundred fields.
_FIRST = (
    "model_variant",
    "training_number_of_steps",
    "train_batch_size",
    "train_crop_size",
    "base_learning_rate",
    "tf_initial_checkpoint",
)

# Where a stage runs, besides its flags; archiving is part of the training's execution.
WITH_BACKEND = ("fetch", "convert", "train", "evaluate", "export", "predict")
_PLACEMENT = ("backend", "environment")
Backend = Literal["local", "valohai"]
# Stages whose outputs a stage reads.
_READS = {"train": ["convert"], "evaluate": ["convert", "train"], "export": ["train"], "predict": ["convert", "export"]}


class Section(Form):
    """The flags of one stage, as far as they were given."""

    @model_serializer(mode="wrap")
    def _only_given(self, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    def given(self) -> dict[str, Any]:
        """The flags that were given."""
        return {name: value for name, value in self if value is not None and name not in _PLACEMENT}


def section_of(stage: str, *, trained: bool = True, left_out: Collection[str] = ()) -> type[Section]:
    """Derive a stage's section from its configuration model.

    Args:
        stage: the stage's name.
        trained: its network is one that the flow trained: fields that decide the weights could only contradict it.
        left_out: further flags that the flow itself supplies.
    """
    config = CONFIGS[stage]
    decided = set(config.weight_fields()) if trained and stage in _AFTER_TRAINING else set()
    left_out = {*_SUPPLIED[stage], *left_out, *decided}
    fields: dict[str, Any] = {}
    for name in _in_order(config):
        info = config.model_fields[name]
        description = info.description or ""
        if name in left_out or description.startswith(_WITHOUT_EFFECT):
            continue
        kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        if name == "model_variant":
            kind = Annotated[kind, Field(json_schema_extra={"enum": list(VARIANTS)})]
        fields[name] = (kind | None, Field(None, description=_explained(stage, name, description)))
    if stage in WITH_BACKEND:
        where = "Where this stage runs. Empty: as the whole flow."
        if stage == "fetch":
            where += " On valohai the converting execution reads the address itself."
        fields["backend"] = (Backend | None, Field(None, description=where))
        if stage != "fetch":
            fields["environment"] = (str | None, Field(None, description="Its machine type on Valohai."))
    summary = (config.__doc__ or "").strip()
    return create_model(f"{stage.capitalize()}Section", __base__=Section, __doc__=summary, **fields)


def _in_order(config: type[Flags]) -> list[str]:
    """A stage's fields: those that most runs set, its own, and then what it shares with other stages."""
    own_first = [name for kind in config.__mro__ for name in vars(kind).get("__annotations__", ())]
    return [name for name in dict.fromkeys((*_FIRST, *own_first)) if name in config.model_fields]


def _explained(stage: str, name: str, description: str) -> str:
    """A field's description with what "empty" comes to, where that can be said."""
    default = CONFIGS[stage].model_fields[name].get_default()
    if stage in _AFTER_TRAINING and name in {*ModelConfig.model_fields, *PreprocessingConfig.model_fields, *_CROPS}:
        return f"{description} Empty: as trained."
    if default in (None, "", PydanticUndefined):
        return description
    shown = ",".join(str(item) for item in default) if isinstance(default, tuple) else default
    return f"{description} Empty: {str(shown).lower() if isinstance(shown, bool) else shown}."


SampleSection = section_of("sample")
FetchSection = section_of("fetch")
ConvertSection = section_of("convert")
TrainSection = section_of("train")
EvaluateSection = section_of("evaluate")
ExportSection = section_of("export")
PredictSection = section_of("predict")
SECTIONS: dict[str, type[Section]] = {
    "sample": SampleSection,
    "fetch": FetchSection,
    "convert": ConvertSection,
    "train": TrainSection,
    "evaluate": EvaluateSection,
    "export": ExportSection,
    "predict": PredictSection,
}


class ValohaiSection(Form):
    """How stages run as Valohai executions."""

    credentials: str | None = Field(
        None,
        description="Prefect block with host, token and project. Empty: VALOHAI_TOKEN and so on, or the login of vh.",
    )
    environment: str | None = Field(None, description="Machine type: slug or name. Empty: the step's or the project's.")
    commit: str | None = Field(
        None, description="Git commit that the project knows (HEAD: the one here). Empty: the code here is handed over."
    )
    queue_limit_secs: int | None = Field(None, ge=1, description="Seconds an execution may wait. Empty: for ever.")
    run_limit_secs: int | None = Field(None, ge=1, description="Seconds an execution may run. Empty: for ever.")


class TrainFlowParameters(Form):
    """Fetch a data set, convert it, train on it, archive, evaluate and export the network, and predict with it."""

    preset: Annotated[str, Field(json_schema_extra={"enum": list(presets.names())})] | None = Field(
        None, description=f"Named values for what is left empty: {', '.join(presets.names())}."
    )
    dataset: str | None = Field(None, description=f"Data set; empty: the preset's, else {_DEFAULT_DATASET}.")
    store: str = Field(
        DEFAULT_STORE,
        description="Keeps what every stage made, for this and later runs: a folder, or az://CONTAINER/FOLDER.",
    )
    azure_storage: str | None = Field(
        None,
        description="Prefect block (Azure storage) that opens az:// and azure:// addresses. "
        "Empty: AZURE_STORAGE_CONNECTION_STRING and so on.",
    )
    backend: Backend = Field("local", description="Where stages run: on this machine, or as Valohai executions.")
    label: str | None = Field(
        None, description="Comes first in the name of the run; a sweep's trainings have what varies there."
    )
    approve: bool = Field(
        False, description="Before the export, show the scores in Prefect's UI and wait for a person's consent."
    )
    fetch: FetchSection = Field(default_factory=FetchSection)  # type: ignore[valid-type]
    convert: ConvertSection = Field(default_factory=ConvertSection)  # type: ignore[valid-type]
    train: TrainSection = Field(default_factory=TrainSection)  # type: ignore[valid-type]
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)  # type: ignore[valid-type]
    export: ExportSection = Field(default_factory=ExportSection)  # type: ignore[valid-type]
    predict: PredictSection = Field(default_factory=PredictSection)  # type: ignore[valid-type]
    sample: SampleSection = Field(default_factory=SampleSection)  # type: ignore[valid-type]
    valohai: ValohaiSection = Field(default_factory=ValohaiSection)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, values: Any) -> Any:
        """A heading without content (``train:``) in a file is null."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _check(self) -> "TrainFlowParameters":
        """Refuse now what a stage would refuse hours later."""
        try:
            self._check_names()
            self._check_places()
            self._check_sections()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def _check_names(self) -> None:
        if self.preset is not None and self.preset not in presets.names():
            near = difflib.get_close_matches(self.preset, presets.names(), n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(presets.names())}"
            raise ConfigError(f"--preset={self.preset}: unknown; {hint}")
        _ = self.data
        if self.source is None and self.dataset_name != _DRAWN_DATASET:
            raise ConfigError(
                f"--fetch.source is required for the data set {self.dataset_name}: URL or path of its archive "
                "(--preset=demo draws a data set of its own)"
            )

    def _check_places(self) -> None:
        """Refuse executions that would need what only this machine can read."""
        self._check_description()
        own = {
            (stage, flag): place
            for stage, flag in (("train", "tf_initial_checkpoint"), ("predict", "images"))
            if (place := self.values(stage).get(flag))
        }
        for (stage, flag), place in own.items():
            if place.startswith("datum://") and not self.runs_remotely(stage):
                raise ConfigError(
                    f"--{stage}.{flag}={place} can only be read by an execution: give --{stage}.backend=valohai"
                )
        if not lies_here(self.store):
            return
        for (stage, flag), place in own.items():
            if self.runs_remotely(stage) and not is_url(place):
                raise ConfigError(
                    f"--{stage}.{flag}={place} can only be read on this machine: give --store=az://CONTAINER/FOLDER, "
                    f"to which it can be brought, an address that Valohai can read, or --{stage}.backend=local"
                )
        for stage, producers in _READS.items():
            here = [producer for producer in producers if not self.runs_remotely(producer)]
            if self.runs_remotely(stage) and here:
                raise ConfigError(
                    f"--{stage}.backend=valohai needs what {' and '.join(here)} leaves on this machine: "
                    "give --store=az://CONTAINER/FOLDER, where both can read it"
                    + "".join(f", or --{producer}.backend=valohai" for producer in here if producer in WITH_BACKEND)
                )
        remote_convert = self.runs_remotely("convert")
        if remote_convert and not (self.source and is_url(self.source)):
            raise ConfigError(
                "--convert.backend=valohai needs an archive that Valohai can read: give its address as --fetch.source, "
                "or --store=az://CONTAINER/FOLDER, to which a file from here is brought"
            )

    def _check_description(self) -> None:
        """What a converting execution cannot be given: a folder, and a ``dataset.yaml`` that is not among the code."""
        name, source = self.dataset_name, self.source
        if not self.runs_remotely("convert"):
            return
        if source and not is_url(source) and Path(source).is_dir():
            raise ConfigError(f"--convert.backend=valohai cannot read the folder {source}: give a zip or tar of it")
        if not is_dataset_file(name):
            return
        if Path(name).is_absolute() or Path(name).resolve() != (CODE / name).resolve():
            raise ConfigError(
                f"--convert.backend=valohai cannot read --dataset={name}: it must lie below {CODE}, which is handed "
                "over, be named by its path from there, and the flow be run from there"
            )

    def _check_sections(self) -> None:
        training = self._resolved("train", None)
        assert isinstance(training, TrainingConfig)
        description = describe(training, self.data)
        for stage in SECTIONS:
            self._resolved(stage, description if stage in _AFTER_TRAINING else None)

    def _resolved(self, stage: str, description: ModelDescription | None) -> Flags:
        """A stage's configuration, with a dash for every path that only the run knows."""
        required = {name: "-" for name, info in CONFIGS[stage].model_fields.items() if info.is_required()}
        supplied = {"dataset": self.dataset_name} if "dataset" in CONFIGS[stage].model_fields else {}
        try:
            return resolve(CONFIGS[stage], {**required, **supplied, **self.values(stage)}, description)
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text.replace("--", f"--{stage}.") if "--" in text else f"{stage}: {text}") from None

    def runs_remotely(self, stage: str) -> bool:
        """Whether a stage runs as an execution."""
        return stage in WITH_BACKEND and (getattr(self, stage).backend or self.backend) == "valohai"

    def environment(self, stage: str) -> str | None:
        """The machine type of a stage's execution; None: the step's or the project's."""
        return getattr(getattr(self, stage, None), "environment", None) or self.valohai.environment

    def values(self, stage: str) -> dict[str, Any]:
        """A stage's flags: what was given, over the preset."""
        section: Section = getattr(self, stage)
        return {**self._preset_section(stage), **section.given()}

    def _preset_section(self, stage: str) -> dict[str, Any]:
        content = presets.load(self.preset).get(stage, {}) if self.preset else {}
        return SECTIONS[stage].model_validate(content).given()

    @property
    def dataset_name(self) -> str:
        """What ``--dataset`` says: given, or the preset's, or ADE20K."""
        preset: str | None = presets.load(self.preset).get("dataset") if self.preset else None
        return self.dataset or preset or _DEFAULT_DATASET

    @property
    def data(self) -> Dataset:
        """The data set itself."""
        return get_dataset(self.dataset_name)

    @property
    def source(self) -> str | None:
        """URL or path of the data set's archive, or its folder here; None: the flow draws it."""
        source: str | None = self.values("fetch").get("source")
        return source or (self.data.layout.source if is_dataset_file(self.dataset_name) else None)

    @property
    def title(self) -> str:
        """Data set and network."""
        default = TrainingConfig.model_fields["model_variant"].default
        return f"{self.data.name} {self.values('train').get('model_variant', default)}"

    @property
    def run_name(self) -> str:
        """Label, data set, network and where the stages run; stages that run as the others do not are named."""
        title = f"{self.label}: {self.title}" if self.label else self.title
        remote = [stage for stage in WITH_BACKEND if self.runs_remotely(stage)]
        if not remote or len(remote) == len(WITH_BACKEND):
            return f"{title}, {'Valohai' if remote else 'local'}"
        return f"{title}, Valohai: {' '.join(remote)}"


def describe(training: TrainingConfig, dataset: Dataset) -> ModelDescription:
    """The description that a training with this configuration will write."""
    return ModelDescription.of(training, training.train_crop_size, dataset.num_classes, **dataset.description())
