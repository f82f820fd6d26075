"""The one exception tree: every error that a person at the keyboard can do something about.

The message says what was given, what is allowed and what to do. The command line prints it as one line and
exits with 1; anything that is not a ``DeepLabError`` is a defect and keeps its traceback.
"""


class DeepLabError(Exception):
    """The root. Never raised itself."""


class ConfigError(DeepLabError):
    """A flag, a configuration file or a combination of fields that cannot work."""


class DataError(DeepLabError):
    """An image, a mask, an archive or a record that is not what it should be; names the file."""


class CheckpointError(DeepLabError):
    """A checkpoint that is missing, cut short or belongs to another model."""


class OutputError(DeepLabError):
    """An output folder that cannot be written, is in use, or holds the work of another command."""


class FetchError(DeepLabError):
    """A source that cannot be read, or whose content is not what was promised."""


class TrainingError(DeepLabError):
    """A loss that is no longer a number."""


def system_reason(error: OSError) -> str:
    """An error of the system for a person: the file, if one is known, and what is wrong with it."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


class Stopped(BaseException):
    """The process was told to stop (SIGTERM, Ctrl-C); what can be kept has been kept.

    No error, as ``KeyboardInterrupt`` is none: TensorFlow and others make something else of every ``Exception`` that
    passes through them.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped on request; the same command goes on from here")
        self.signal_number, self.exit_code = signal_number, 128 + signal_number
