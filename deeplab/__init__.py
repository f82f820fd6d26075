"""DeepLab semantic segmentation: networks, data, training, evaluation, export and prediction.

Every stage is a command (``deeplab STAGE --flag=value``) and knows nothing of what orchestrates it.
"""

from deeplab.version import __version__

__all__ = ["__version__"]
