"""What merely is unusual: it runs, as it does in the original, and is said once in the log."""

from deeplab.config.description import ModelDescription
from deeplab.config.model import ModelConfig

# DeepLab v3 (Chen et al. 2017), section 4: rates for output stride 16, doubled for 8; the zoo halves them for 32.
_USUAL_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}


def rates_of_another_stride(config: ModelConfig, trained: ModelDescription | None = None) -> str | None:
    """A sentence if the atrous rates are those of another output stride than the one in use.

    Args:
        config: the network in use.
        trained: the network as it was trained, if known: its rates suit its own output stride.
    """
    rates, stride = config.atrous_rates, config.output_stride
    if not rates or config.dense_prediction_cell is not None:
        return None
    known = dict(_USUAL_RATES)
    if trained is not None and trained.fields.get("atrous_rates"):
        known |= {trained.fields["output_stride"]: tuple(trained.fields["atrous_rates"])}
    if known.get(stride) == rates:
        return None
    for other, suited in known.items():
        if other != stride and suited == rates:
            usual = ",".join(f"{rate * other / stride:g}" for rate in rates)
            given = ",".join(str(rate) for rate in rates)
            return (
                f"--atrous_rates={given} suit output stride {other}, but --output_stride={stride} is in use: objects "
                f"are seen at another scale; usual here: --atrous_rates={usual}"
            )
    return None
