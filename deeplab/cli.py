"""``deeplab STAGE --flag=value``: find the stage, read its flags, run it, and end as the contract says.

Exit status: 0 done; 143 (130 for Ctrl-C) told to stop; 2 a bad command line; 1 any other failure, with one line.
"""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from deeplab.config import CONFIGS, Flags, InspectConfig, SummaryConfig
from deeplab.config.command_line import help_text, parse
from deeplab.errors import ConfigError, DeepLabError, Stopped, system_reason
from deeplab.quiet import import_tensorflow
from deeplab.stage import stop
from deeplab.version import __version__

# Stage name -> the module whose ``run`` takes the given values. Imported when asked for: some need no TensorFlow.
_STAGES = {
    "sample": "deeplab.data.sample",
    "fetch": "deeplab.data.fetch",
    "convert": "deeplab.data.convert",
    "train": "deeplab.training.train",
    "archive": "deeplab.training.archive",
    "evaluate": "deeplab.evaluation.evaluate",
    "export": "deeplab.export.export",
    "predict": "deeplab.inference.predict",
}
# Tool name -> the module whose ``run`` takes the words after it and returns the exit status, and what it does.
_TOOLS = {
    "inspect": ("deeplab.data.inspection", "Tell sizes, classes and oddities of a data set."),
    "model": ("deeplab.model.summary", "Print the layers, variables and multiply-adds of a network."),
    "zoo": ("deeplab.zoo.command", "List, show and fetch the published checkpoints."),
    "doctor": ("deeplab.doctor", "Tell versions, devices and what is missing."),
}
_WITH_TENSORFLOW = {"train", "archive", "evaluate", "export", "predict", "model"}


def _usage() -> str:
    summaries = {name: (CONFIGS[name].__doc__ or "").strip().splitlines()[0] for name in _STAGES}
    summaries |= {name: summary for name, (_, summary) in _TOOLS.items()}
    lines = [f"  {name:10s} {summary}" for name, summary in summaries.items()]
    lines.insert(len(_STAGES), "\nTools:")
    return "\n".join(
        [
            f"deeplab {__version__}: semantic segmentation, one stage a command",
            "",
            "  deeplab STAGE --flag=value ...     deeplab STAGE --help",
            "",
            "Stages:",
            *lines,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        # Whoever read our output has seen enough (``| head``). Python would complain once more at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if words else 2
    if words[0] in ("--version", "version"):
        print(__version__)
        return 0
    stage, rest = words[0], words[1:]
    described: dict[str, type[Flags]] = {**CONFIGS, "model": SummaryConfig, "inspect": InspectConfig}
    if {"-h", "--help"} & set(rest) and stage in described:
        print(help_text(stage, described[stage]))
        return 0
    return _run(stage, rest)


def _run(stage: str, arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    stop.install()
    try:
        if stage in _TOOLS:
            return _use_tool(stage, arguments)
        if stage not in _STAGES:
            raise ConfigError(f"unknown stage {stage!r}; one of {', '.join([*_STAGES, *_TOOLS])}")
        given = parse(CONFIGS[stage], arguments)
        _import_for(stage)
        importlib.import_module(_STAGES[stage]).run(given)
    except Stopped as stopped:
        logging.warning("%s", stopped)
        return stopped.exit_code
    except DeepLabError as error:
        print(f"deeplab {stage}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        if not error.strerror or isinstance(error, BrokenPipeError):
            raise
        print(f"deeplab {stage}: {system_reason(error)}", file=sys.stderr)
        return 1
    return 0


def _use_tool(name: str, arguments: list[str]) -> int:
    _import_for(name)
    status: int = importlib.import_module(_TOOLS[name][0]).run(arguments)
    return status


def _import_for(name: str) -> None:
    # No command multiplies matrices with numpy, whose threads for that cost each a tenth of a second at the start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if name in _WITH_TENSORFLOW:
        import_tensorflow()
