"""``deeplab doctor``: versions, devices, and what is missing."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys

from deeplab.errors import ConfigError
from deeplab.quiet import import_tensorflow
from deeplab.version import __version__

_PACKAGES = (
    "tensorflow",
    "tf-slim",
    "numpy",
    "pillow",
    "prefect",
    "pydantic",
    "fsspec",
    "adlfs",
    "google-crc32c",
    "deflate",
)
# Free space, in GiB, that a full ADE20K run needs: 1 GB zip, 2.3 GB records and archive, then checkpoints.
_DISK_GIB = 8


def run(words: list[str]) -> int:
    """Print the report on stdout; returns 0 if nothing that a stage needs is missing, else 1."""
    if words:
        raise ConfigError(f"doctor takes no {words[0]}; just deeplab doctor")
    problems: list[str] = []
    print(f"deeplab {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"processors {os.cpu_count()}, free disk here {_free_gib():.0f} GiB")
    for name in _PACKAGES:
        print(f"  {name:14s} {_version(name, problems)}")
    if not any(problem.startswith("tensorflow is not installed") for problem in problems):
        print("devices: " + ", ".join(_devices()))
    if _free_gib() < _DISK_GIB:
        problems.append(f"less than {_DISK_GIB} GiB of disk is free here: enough for the demo, not for ADE20K")
    for problem in problems:
        print(f"missing: {problem}", file=sys.stderr)
    if not problems:
        print("nothing is missing")
    return 1 if any("not installed" in problem for problem in problems) else 0


def _free_gib() -> float:
    return shutil.disk_usage(".").free / 2**30


def _version(name: str, problems: list[str]) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        problems.append(f"{name} is not installed; run pip install deeplab-prefect")
        return "-"


def _devices() -> list[str]:
    import_tensorflow()
    import tensorflow as tf

    names = [f"{device.name} ({device.device_type})" for device in tf.config.list_physical_devices()]
    if not tf.config.list_physical_devices("GPU"):
        names.append("no GPU (with an NVIDIA card: pip install -e '.[gpu]' in the checkout)")
    return names
