"""Run one stage, or reuse what it made: the part that all stage tasks share."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from deeplab.config import CONFIGS, ModelDescription, resolve
from deeplab.stage.inputs import input_digest
from deeplab.stage.manifest import Manifest, combined_digest, sha256_of
from deeplab.stage.versions import CODE_VERSIONS
from tasks.errors import StageFailed
from tasks.runner import local
from tasks.stage_output import Logger, StageOutput, Watcher
from tasks.store import Entry, Identity, Store

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


@dataclass(frozen=True)
class StageCall:
    """What a stage is asked to do.

    Attributes:
        stage: its name.
        values: flags that a person or a preset gave.
        paths: flags that the flow sets: where the inputs are, and the data set.
        inputs: flag name -> digest of what it points to.
        description: the ``model.json`` that supplies the flags nobody gave.
    """

    stage: str
    values: Mapping[str, Any]
    paths: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    description: ModelDescription | None = None

    def given(self) -> dict[str, Any]:
        """All flags but the output's, without those left empty."""
        flags = {**self.values, **self.paths}
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in flags.items() if value is not None
        }

    def identity(self) -> Identity:
        """What decides the products.

        Raises:
            ConfigError: for values that the stage would refuse.
        """
        config_class, (output_flag, _) = CONFIGS[self.stage], OUTPUTS[self.stage]
        config = resolve(config_class, {**self.given(), output_flag: "-"}, self.description)
        version = CODE_VERSIONS[self.stage]
        return Identity(
            stage=self.stage, code_version=version, parameters=config.key_parameters(), inputs=dict(self.inputs)
        )

    def command(self, output: Path) -> list[str]:
        """The command line that makes ``output``."""
        flags = {**self.given(), OUTPUTS[self.stage][0]: output}
        words = [f"--{name}={flag_text(value)}" for name, value in flags.items()]
        return [sys.executable, "-m", "deeplab", self.stage, *words]


@dataclass(frozen=True)
class StageResult:
    """What a stage left: small enough to hand from task to task.

    Attributes:
        stage: its name.
        key: the entry's key.
        folder: the entry's folder.
        output: that folder, or the file in it that the stage makes.
        digest: digest of the products.
        reused: whether an earlier run had made it.
        seconds: how long the stage took, in whichever run made it.
    """

    stage: str
    key: str
    folder: Path
    output: Path
    digest: str
    reused: bool
    seconds: float


Preparation = Callable[[Entry], None]


def run_stage(
    store: Store, call: StageCall, *, watchers: Sequence[Watcher] = (), prepare: Preparation | None = None
) -> StageResult:
    """Reuse a stage's output if it is there and whole, else run the stage.

    Args:
        store: where outputs live.
        call: what to do.
        watchers: receivers of progress and metrics while the stage runs.
        prepare: called with the entry before the stage runs, not when its output is reused.

    Raises:
        ConfigError: for values that the stage would refuse.
        StageFailed: with the stage's own reason.
    """
    logger = get_run_logger()
    entry = store.entry(call.identity(), OUTPUTS[call.stage][1])
    with entry.held(lambda: logger.info("%s: waiting for another run that works on it", shown(entry.folder))):
        manifest, reason = entry.examine()
        if manifest is not None:
            logger.info("reused %s", shown(entry.output))
            return _result(entry, manifest, reused=True)
        logger.info("%s runs because %s: %s", call.stage, reason, shown(entry.output))
        entry.prepare()
        if prepare is not None:
            prepare(entry)
        manifest = _execute(call, entry, logger, watchers)
        return _result(entry, manifest, reused=False)


def _execute(call: StageCall, entry: Entry, logger: Logger, watchers: Sequence[Watcher]) -> Manifest:
    started = time.monotonic()
    with entry.log.open("a", encoding="utf-8") as log:
        output = StageOutput(log, logger, watchers)
        status = local.run(call.command(entry.output), output.receive)
    if status != 0:
        raise StageFailed(f"{call.stage}: {_reason(call.stage, status, output.last_line)} (log: {shown(entry.log)})")
    manifest, reason = entry.examine()
    if manifest is None:
        raise StageFailed(
            f"{call.stage}: ended well but {reason} (log: {shown(entry.log)}); run the same command again"
        )
    logger.info("%s took %.1f s", call.stage, time.monotonic() - started)
    return manifest


def _reason(stage: str, status: int, last_line: str) -> str:
    if status == 143:
        return "was told to stop; the same command goes on from there"
    if status == -9:
        return "was killed, usually because memory ran out; try a smaller batch or crop"
    if status < 0:
        return f"ended by signal {-status}"
    return last_line.removeprefix(f"deeplab {stage}: ") or f"ended with status {status}"


def _result(entry: Entry, manifest: Manifest, *, reused: bool) -> StageResult:
    return StageResult(
        stage=entry.identity.stage,
        key=entry.identity.key,
        folder=entry.folder,
        output=entry.output,
        digest=manifest.digest,
        reused=reused,
        seconds=float(manifest.ran.get("seconds", 0.0)),
    )


def flag_text(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value)
    return str(value)


def shown(path: Path) -> str:
    """A path as a person here would type it: relative where it lies below the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def checkpoint_digest(place: str) -> str:
    """Digest of a checkpoint that came from elsewhere: a folder, an archive, or the prefix of its files.

    Raises:
        DataError: if there is none.
    """
    path = Path(place)
    files = sorted(path.parent.glob(f"{path.name}.*")) if not path.exists() and path.name else []
    if files:
        return combined_digest({file.name: sha256_of(file) for file in files if file.is_file()})
    return input_digest(path)
