"""What can go wrong around a stage, as part of the product's one exception tree."""

from deeplab.errors import DeepLabError


class StageFailed(DeepLabError):
    """A stage's command ended without its output; carries the stage's own last line."""


class StoreError(DeepLabError):
    """A store that cannot be used, or an entry whose content is not what its manifest says."""


class EntryInUse(StoreError):
    """An entry that was to be removed, and that somebody works on or has just used."""
