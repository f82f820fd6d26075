"""Import TensorFlow without its start-up notes: a stage's log is for the person who runs it."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _captured_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2; print it after all if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            buffer.seek(0)
            os.write(2, buffer.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def import_tensorflow() -> None:
    """Import TensorFlow and find its devices.

    oneDNN, CUDA and the deprecation of TensorFlow 1's API, on which this product's formats rest, are announced on
    every start otherwise, by C++ code that no log level reaches.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _captured_stderr():
        import tensorflow as tf

        tf.config.list_logical_devices()
    tf.get_logger().setLevel("ERROR")
