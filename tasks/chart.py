"""The loss curve as SVG, for the report and for Prefect's page of a run."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

# Pixels of the whole drawing, and of the margins that hold ticks and labels.
_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 48
# More points than this do not show on a drawing of that width.
_MOST_POINTS = 400
# Weight of the past in the smoothed curve.
_SMOOTHING = 0.6

Points = list[tuple[float, float]]


def read_points(path: Path) -> Points:
    """(step, loss) of every line of a ``metrics.jsonl`` or a log that has both; lines cut short are left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [point for line in lines if (point := loss_point(_values(line))) is not None]


def _values(line: str) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def loss_point(values: Mapping[str, Any]) -> tuple[float, float] | None:
    """(step, loss) of a metric point, if it has both and they are numbers."""
    step, loss = values.get("step"), values.get("loss")
    if not isinstance(step, (int, float)) or not isinstance(loss, (int, float)) or not math.isfinite(loss):
        return None
    return float(step), float(loss)


def loss_curve(points: Sequence[tuple[float, float]], ink: str = "#808790", line: str = "#3d7bd9") -> str:
    """An SVG drawing of loss over steps: the values faint, their running mean strong.

    Args:
        points: (step, loss), in order of steps.
        ink: colour of axes and text; the default can be read on light and on dark ground.
        line: colour of the curve.
    """
    if not points:
        return ""
    kept = _thin(points)
    steps, losses = [step for step, _ in kept], [loss for _, loss in kept]
    horizontal = _Axis(min(steps), max(steps), _LEFT, _WIDTH - _RIGHT, whole=True)
    vertical = _Axis(min(0.0, *losses), max(losses), _HEIGHT - _BOTTOM, _TOP)
    last = points[-1]
    title = (
        f"Loss over training steps: {points[0][1]:.4g} at step {points[0][0]:.0f}, {last[1]:.4g} at step {last[0]:.0f}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        *_grid(horizontal, vertical, ink),
        _path(kept, horizontal, vertical, f'stroke="{line}" stroke-width="1" opacity="0.4"'),
        _path(_smooth(kept), horizontal, vertical, f'stroke="{line}" stroke-width="2"'),
        _dot(kept, horizontal, vertical, line),
        "</svg>",
    ]
    return "\n".join(parts)


class _Axis:
    """Maps values to pixels, with ticks at round values."""

    def __init__(self, low: float, high: float, start: float, end: float, *, whole: bool = False) -> None:
        if high <= low:
            low, high = low - 0.5 * (not whole), low + 1
        step = _round_step((high - low) / 5, whole)
        self.ticks = [number * step for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]
        self._low, self._scale, self._start = low, (end - start) / (high - low), start
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return round(self._start + (value - self._low) * self._scale, 1)


def _round_step(rough: float, whole: bool) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return max(1.0, step) if whole else step


def _grid(horizontal: _Axis, vertical: _Axis, ink: str) -> list[str]:
    bottom, left = _HEIGHT - _BOTTOM, _LEFT
    lines = []
    for tick in vertical.ticks:
        y = vertical(tick)
        lines.append(f'<line x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="{ink}" opacity="0.25"/>')
        lines.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" fill="{ink}">{tick:.4g}</text>')
    for tick in horizontal.ticks:
        x = horizontal(tick)
        lines.append(f'<line x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}" stroke="{ink}"/>')
        lines.append(f'<text x="{x}" y="{bottom + 19}" text-anchor="middle" fill="{ink}">{tick:.0f}</text>')
    lines.append(f'<line x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}" stroke="{ink}"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle" fill="{ink}">step</text>')
    y = (_TOP + bottom) / 2
    lines.append(f'<text x="14" y="{y}" text-anchor="middle" fill="{ink}" transform="rotate(-90 14 {y})">loss</text>')
    return lines


def _path(points: Sequence[tuple[float, float]], horizontal: _Axis, vertical: _Axis, style: str) -> str:
    places = " ".join(f"{horizontal(step)},{vertical(loss)}" for step, loss in points)
    return f'<polyline points="{places}" fill="none" stroke-linejoin="round" {style}/>'


def _dot(points: Sequence[tuple[float, float]], horizontal: _Axis, vertical: _Axis, colour: str) -> str:
    """A single point makes no line."""
    if len(points) > 1:
        return ""
    return f'<circle cx="{horizontal(points[0][0])}" cy="{vertical(points[0][1])}" r="3" fill="{colour}"/>'


def _smooth(points: Sequence[tuple[float, float]]) -> Points:
    """Running mean, corrected for its start."""
    result, mean, weight = [], 0.0, 0.0
    for step, loss in points:
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        weight = _SMOOTHING * weight + (1 - _SMOOTHING)
        result.append((step, mean / weight))
    return result


def _thin(points: Sequence[tuple[float, float]]) -> Points:
    """Means over equally many neighbours, so that a long training keeps its shape."""
    size = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
