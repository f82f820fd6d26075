"""``deeplab STAGE --flag=value``: find the stage, read its flags, run it, and end as the contract says.

Exit status: 0 done; 143 (130 for Ctrl-C) told to stop; 2 a bad command line; 1 any other failure, with one line.
"""

import importlib
import logging
import sys
from collections.abc import Sequence

from deeplab.config import CONFIGS
from deeplab.config.command_line import help_text, parse
from deeplab.doctor import examine
from deeplab.errors import ConfigError, DeepLabError, Stopped
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
_WITH_TENSORFLOW = {"train", "archive", "evaluate", "export", "predict"}
_USAGE = f"""deeplab {__version__}: semantic segmentation, one stage a command

  deeplab STAGE --flag=value ...     deeplab STAGE --help     deeplab doctor

Stages:
""" + "\n".join(f"  {name:10s} {(CONFIGS[name].__doc__ or '').strip().splitlines()[0]}" for name in _STAGES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_USAGE)
        return 0 if words else 2
    if words[0] in ("--version", "version"):
        print(__version__)
        return 0
    stage, rest = words[0], words[1:]
    if {"-h", "--help"} & set(rest) and stage in CONFIGS:
        print(help_text(stage, CONFIGS[stage]))
        return 0
    return _run(stage, rest)


def _run(stage: str, arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    stop.install()
    try:
        if stage == "doctor":
            return examine()
        if stage not in CONFIGS:
            raise ConfigError(f"unknown stage {stage!r}; one of {', '.join(_STAGES)}, doctor")
        given = parse(CONFIGS[stage], arguments)
        if stage in _WITH_TENSORFLOW:
            import_tensorflow()
        importlib.import_module(_STAGES[stage]).run(given)
    except Stopped as stopped:
        logging.warning("%s", stopped)
        return stopped.exit_code
    except DeepLabError as error:
        print(f"deeplab {stage}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        if not error.strerror:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"deeplab {stage}: {where}{error.strerror}", file=sys.stderr)
        return 1
    return 0
