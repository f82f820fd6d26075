"""The parameters of a sweep: a training flow, and what varies in it."""

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import Field, model_validator

from deeplab.config import validate
from deeplab.config.base import is_sequence
from deeplab.errors import ConfigError
from flows.command_line import flag_names, merge, nearest
from flows.form import Form
from flows.parameters import TrainFlowParameters

# Sections whose fields cannot make a difference to what a trial measures.
_WITHOUT_EFFECT = ("export.", "predict.", "valohai.")
_FIXED = ("store", "backend", "approve", "label")
_RANGE = re.compile(r"(.+)\.\.(.+)")
# From this ratio of its ends on, a range is drawn from by orders of magnitude.
_WIDE = 10.0
_DRAWS = 50


@dataclass(frozen=True)
class Range:
    """A range to draw from: both ends belong to it; whole numbers if both ends are."""

    low: float
    high: float
    whole: bool

    def draw(self, chance: random.Random) -> float | int:
        """A value: evenly, or by orders of magnitude where the range spans several."""
        if self.low > 0 and self.high / self.low >= _WIDE:
            value = math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = chance.uniform(self.low, self.high)
        return round(value) if self.whole else float(f"{value:.4g}")


class SweepParameters(Form):
    """Train and measure the same thing with different values of some fields, and compare."""

    base: TrainFlowParameters = Field(
        default_factory=lambda: TrainFlowParameters(preset="demo"),
        description="What all trainings share. Empty: the demo.",
    )
    vary: dict[str, Any] = Field(
        description="Field of the training flow (train.base_learning_rate) and its values: 0.01,0.05 or, with samples, "
        "LOW..HIGH. Values that are lists themselves are parted by ;"
    )
    samples: int | None = Field(
        None, ge=1, description="Draw so many different combinations, as far as there are. Empty: all of them."
    )
    seed: int = Field(0, description="Of the draw.")
    concurrency: int = Field(1, ge=1, le=64, description="Trainings at the same time.")
    deployment: str | None = Field(
        None, description="Deployment of the flow trial that runs them (trial/NAME). Empty: processes on this machine."
    )
    give_up_after: int | None = Field(
        None,
        ge=1,
        description="End a training at this step if its loss is worse than give_up_ratio times the best one's there. "
        "Empty: never. Losses are read from the store: trials on other machines need one that lies on a shared disk.",
    )
    give_up_ratio: float = Field(2.0, gt=1, description="See give_up_after.")

    @model_validator(mode="after")
    def _check(self) -> "SweepParameters":
        try:
            _ = self.trials
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """What each trial sets, as ``{"train.base_learning_rate": 0.01}``, in a fixed order.

        Raises:
            ConfigError: for a field that does not exist or cannot matter, or a range without ``samples``.
        """
        choices = {name: self._choices(name, given) for name, given in self.vary.items()}
        if not choices:
            raise ConfigError("--vary.FIELD=VALUES is required: say what differs between the trainings")
        ranged = [name for name, values in choices.items() if isinstance(values, Range)]
        if ranged and self.samples is None:
            raise ConfigError(f"--vary.{ranged[0]} is a range; say with --samples how many values to draw")
        lists = {name: values for name, values in choices.items() if not isinstance(values, Range)}
        grid = [dict(zip(lists, point, strict=True)) for point in itertools.product(*lists.values())]
        if self.samples is None:
            return grid
        return self._drawn(choices, grid, bool(ranged))

    def _drawn(self, choices: Mapping[str, Any], grid: list[dict[str, Any]], ranged: bool) -> list[dict[str, Any]]:
        chance = random.Random(self.seed)
        assert self.samples is not None
        if not ranged:
            return chance.sample(grid, min(self.samples, len(grid)))
        drawn: dict[str, dict[str, Any]] = {}
        # Where there are fewer combinations than asked for, these many draws find nearly all of them.
        for _ in range(_DRAWS * self.samples):
            point = {
                name: values.draw(chance) if isinstance(values, Range) else chance.choice(values)
                for name, values in choices.items()
            }
            drawn.setdefault(_sentence(point), point)
            if len(drawn) == self.samples:
                break
        return list(drawn.values())

    @cached_property
    def trials(self) -> list[TrainFlowParameters]:
        """The parameters of each trial, in the order of ``points``.

        Raises:
            ConfigError: if one would be refused.
        """
        return [self._trial(point) for point in self.points]

    def _trial(self, point: Mapping[str, Any]) -> TrainFlowParameters:
        given: Mapping[str, Any] = self.base.model_dump(mode="json", exclude_none=True)
        for name, value in point.items():
            section, dot, field = name.partition(".")
            given = merge(given, {section: {field: value}} if dot else {name: value})
        try:
            return validate(TrainFlowParameters, given)
        except ConfigError as error:
            raise ConfigError(f"{_sentence(point)}: {error}") from None

    def _choices(self, name: str, given: Any) -> Range | list[Any]:
        known = [flag for flag in flag_names(TrainFlowParameters) if not flag.endswith((".backend", ".environment"))]
        if name not in known or name in _FIXED or name.startswith(_WITHOUT_EFFECT):
            near = nearest(name, [flag for flag in known if not flag.startswith(_WITHOUT_EFFECT)])
            raise ConfigError(
                f"--vary.{name}: no field that a sweep can vary" + (f"; did you mean {near}?" * bool(near))
            )
        values = given if isinstance(given, list) else [given]
        if len(values) == 1 and isinstance(values[0], str):
            text = values[0]
            found = _RANGE.fullmatch(text.strip())
            if found:
                return _range(name, found[1], found[2])
            mark = ";" if ";" in text or self._is_list(name) else ","
            values = [part.strip() for part in text.split(mark)]
        if not values or any(value is None or value == "" for value in values):
            raise ConfigError(f"--vary.{name}: a value is empty; name those to try, as in 0.01,0.05")
        if len(set(map(str, values))) < len(values):
            raise ConfigError(f"--vary.{name}: a value is there twice")
        return values

    def _is_list(self, name: str) -> bool:
        section, _, field = name.partition(".")
        model: Any = TrainFlowParameters.model_fields[section].annotation
        return bool(field) and is_sequence(model.model_fields[field])

    @property
    def title(self) -> str:
        """What is trained and what varies, for the name of a run."""
        return f"{self.base.title}: {', '.join(self.vary)}"


def _range(name: str, low: str, high: str) -> Range:
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ConfigError(f"--vary.{name}={low}..{high}: the ends of a range are numbers") from None
    if not all(math.isfinite(end) for end in ends):
        raise ConfigError(f"--vary.{name}={low}..{high}: the ends of a range are finite")
    if not ends[0] < ends[1]:
        raise ConfigError(f"--vary.{name}={low}..{high}: the first end must be less than the second")
    return Range(*ends, whole=all(re.fullmatch(r"\s*[-+]?\d+\s*", end) for end in (low, high)))


def _sentence(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in point.items())


def labels(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each trial, for logs and tables: fields by their last part where that is one field's alone."""
    last = {name: name.rpartition(".")[2] for point in points for name in point}
    count = Counter(last.values())
    shown = {name: short if count[short] == 1 else name for name, short in last.items()}
    return [_sentence({shown[name]: value for name, value in point.items()}) for point in points]
