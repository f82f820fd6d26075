"""How a backbone's strides become dilation once the wanted output stride is reached."""


class OutputStride:
    """Turns the nominal stride of one unit after the other into an effective stride and rate.

    While the running stride is below the target a unit keeps its stride with rate 1. Once it is reached, a unit runs
    with stride 1 and the current rate, and only then the rate is multiplied by the stride the unit would have had.

    Args:
        target: ratio of input to output resolution.
        reached: the running stride so far, such as the stem's.
    """

    def __init__(self, target: int, reached: int) -> None:
        self._target, self._reached, self._rate = target, reached, 1

    def next(self, stride: int) -> tuple[int, int]:
        """Effective (stride, rate) of the next unit, whose nominal stride is ``stride``."""
        if self._reached == self._target:
            rate = self._rate
            self._rate *= stride
            return 1, rate
        self._reached *= stride
        return stride, 1
