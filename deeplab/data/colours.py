"""Colours for label maps of models that do not tell theirs."""

import numpy as np
import numpy.typing as npt


def pascal_colours(count: int) -> npt.NDArray[np.uint8]:
    """PASCAL VOC's colours, uint8 [count, 3]: bits 0, 1, 2 of a label, then 3, 4, 5 and so on, fill red, green, blue.

    The most significant bits are filled first, so neighbouring labels get distant colours.
    """
    labels = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * place + channel)) & 1) << (7 - place)).astype(np.uint8)
    return colours
