"""What ``--dataset`` may say: the name of a data set, or the path of a ``dataset.yaml``."""

import hashlib
from pathlib import Path

from deeplab.errors import ConfigError

# Hexadecimal digits of the digest in an identity.
_DIGITS = 16


def is_dataset_file(name: str) -> bool:
    """Whether a value of ``--dataset`` is the path of a description."""
    return name.lower().endswith((".yaml", ".yml"))


def dataset_identity(name: str) -> str:
    """What stands for a data set in keys and products: a name as it is, a file by its name and content.

    Raises:
        ConfigError: if the file cannot be read.
    """
    if not is_dataset_file(name):
        return name
    path = Path(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--dataset={name}: {error.strerror}; name a registered data set or a dataset.yaml") from None
    return f"{path.stem}@{hashlib.sha256(content).hexdigest()[:_DIGITS]}"
