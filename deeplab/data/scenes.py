"""Made-up landscapes with their masks: the pictures of the data set ``sample``.

A scene is painted from back to front, sky to trees. Every layer covers pixels of the photo and gives the same pixels of
the mask its class, so the two agree exactly. Classes differ in colour, texture and place, so that a small network tells
them apart after a minute's training, while light and shapes vary enough that it has to generalise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from deeplab.data.datasets import get_dataset

Pixels = npt.NDArray[np.floating]
Points = Sequence[tuple[float, float]]

_DATASET = get_dataset("sample")
_CLASS = {name: label for label, name in enumerate(_DATASET.class_names)}


@dataclass(frozen=True)
class Scene:
    """A photo, uint8 [height, width, 3], and its labels, uint8 [height, width]; outlines carry the ignore label."""

    photo: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def draw_scene(height: int, width: int, random: np.random.Generator) -> Scene:
    """Paint a scene of ``height`` x ``width`` pixels; equal generators paint equal scenes."""
    canvas = _Canvas(height, width, random)
    horizon = height * random.uniform(0.42, 0.56)
    _sky(canvas, horizon)
    if random.random() < 0.7:
        _sun(canvas, horizon)
    if random.random() < 0.75:
        _mountains(canvas, horizon)
    if random.random() < 0.6:
        _balloon(canvas, horizon)
    _meadow(canvas, horizon)
    lake = random.random() < 0.6
    if lake:
        _lake(canvas, horizon)
    if not lake or random.random() < 0.35:
        _road(canvas, horizon)
    for paint in _things(canvas, horizon):
        paint()
    return canvas.finish()


class _Canvas:
    """A photo and its labels while they are painted.

    Attributes:
        height, width: pixels.
        unit: the shorter side, which shapes are measured in.
        random: what every choice is drawn from.
    """

    def __init__(self, height: int, width: int, random: np.random.Generator) -> None:
        self.height, self.width, self.random = height, width, random
        self.unit = min(height, width)
        self.rows, self.columns = np.mgrid[0:height, 0:width].astype(np.float32)
        self._photo = np.zeros((height, width, 3), np.float32)
        self._labels = np.zeros((height, width), np.uint8)

    def polygon(self, points: Points) -> npt.NDArray[np.bool_]:
        """The pixels inside a polygon of (column, row) points."""
        image = Image.new("1", (self.width, self.height))
        ImageDraw.Draw(image).polygon(list(points), fill=1)
        return np.asarray(image)

    def ellipse(self, column: float, row: float, radii: tuple[float, float]) -> npt.NDArray[np.bool_]:
        """The pixels inside an ellipse; ``radii`` are horizontal and vertical."""
        return ((self.columns - column) / radii[0]) ** 2 + ((self.rows - row) / radii[1]) ** 2 <= 1

    def noise(self, cell: tuple[float, float]) -> Pixels:
        """Smooth noise in -1..1 [height, width, 1]; ``cell`` is the size of a blotch, columns by rows, in pixels."""
        columns, rows = int(self.width / cell[0]) + 2, int(self.height / cell[1]) + 2
        coarse = self.random.uniform(-1, 1, (rows, columns)).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize((self.width, self.height), Image.Resampling.BICUBIC))[
            ..., None
        ]

    def paint(self, where: npt.NDArray[np.bool_], name: str | None, colour: Pixels | Sequence[float]) -> None:
        """Cover pixels with a colour (one, or [height, width, 3], 0..255) and a class; no name keeps the class."""
        layer = np.broadcast_to(np.asarray(colour, np.float32), self._photo.shape)
        self._photo[where] = layer[where]
        if name is not None:
            self._labels[where] = _CLASS[name]

    def finish(self) -> Scene:
        """Apply the light of the day, soften the edges, add a camera's noise, and outline the labels."""
        random = self.random
        tint = random.normal(1, 0.03, 3) * random.uniform(0.82, 1.1)
        exposed = np.clip(self._photo * tint.astype(np.float32), 0, 255).astype(np.uint8)
        softened = np.asarray(Image.fromarray(exposed).filter(ImageFilter.GaussianBlur(0.7)), np.float32)
        grain = random.normal(0, 3, softened.shape).astype(np.float32)
        photo = np.clip(softened + grain, 0, 255).astype(np.uint8)
        return Scene(photo, _outlined(self._labels))


def _outlined(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Give the pixels on both sides of a border between classes the ignore label, as PASCAL VOC's masks do."""
    border = np.zeros(labels.shape, np.bool_)
    vertical, horizontal = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= vertical
    border[:-1] |= vertical
    border[:, 1:] |= horizontal
    border[:, :-1] |= horizontal
    return np.where(border, np.uint8(_DATASET.ignore_label), labels)


def _blend(one: Sequence[float], other: Sequence[float], share: Pixels) -> Pixels:
    """From one colour (share 0) to another (share 1); ``share`` is [height, width, 1]."""
    return np.asarray(one, np.float32) * (1 - share) + np.asarray(other, np.float32) * share


def _sky(canvas: _Canvas, horizon: float) -> None:
    evening = canvas.random.random() < 0.3
    zenith, low = ((74, 92, 168), (246, 186, 150)) if evening else ((64, 138, 220), (196, 226, 244))
    depth = np.clip(canvas.rows / horizon, 0, 1)[..., None]
    colour = _blend(zenith, low, depth**1.3)
    size = canvas.unit
    clouds = canvas.noise((size / 3, size / 9)) + 0.5 * canvas.noise((size / 8, size / 22))
    cover = np.clip((clouds - canvas.random.uniform(0.2, 0.7)) * 1.6, 0, 0.85)
    canvas.paint(canvas.rows >= 0, "sky", _blend((0, 0, 0), (250, 244, 240), cover) + colour * (1 - cover))


def _sun(canvas: _Canvas, horizon: float) -> None:
    radius = canvas.unit * canvas.random.uniform(0.085, 0.13)
    column = canvas.width * canvas.random.uniform(0.12, 0.88)
    row = canvas.random.uniform(radius * 1.2, horizon * 0.55)
    distance = np.hypot(canvas.columns - column, canvas.rows - row)[..., None] / radius
    canvas.paint(
        canvas.ellipse(column, row, (radius, radius)), "sun", _blend((255, 246, 170), (255, 198, 40), distance)
    )


def _mountains(canvas: _Canvas, horizon: float) -> None:
    random = canvas.random
    ground = horizon + canvas.unit * 0.06
    for shade in (1.0, 0.8):
        count = int(random.integers(2, 4))
        span = canvas.width / count
        points: list[tuple[float, float]] = [(-span, ground)]
        for index in range(count + 1):
            peak = (index + random.uniform(-0.3, 0.3)) * span
            points += [
                (peak, horizon - canvas.unit * random.uniform(0.14, 0.3) * shade),
                (peak + span / 2, horizon - canvas.unit * random.uniform(0.02, 0.07)),
            ]
        points.append((canvas.width + span, ground))
        rock = np.asarray((128, 106, 150), np.float32) * shade + canvas.noise((4, 9)) * 16
        where = canvas.polygon(points)
        canvas.paint(where, "mountain", rock)
        snow = canvas.rows + canvas.noise((5, 5))[..., 0] * 4 < horizon - canvas.unit * 0.19
        canvas.paint(where & snow, None, (232, 228, 240))


def _balloon(canvas: _Canvas, horizon: float) -> None:
    random = canvas.random
    radius = canvas.unit * random.uniform(0.1, 0.15)
    column = canvas.width * random.uniform(0.15, 0.85)
    row = random.uniform(radius * 1.2, horizon * 0.55)
    basket = (radius * 0.3, radius * 0.24)
    bottom = row + radius * 1.75
    cone = [
        (column - radius * 0.8, row + radius * 0.6),
        (column + radius * 0.8, row + radius * 0.6),
        (column + basket[0], bottom),
        (column - basket[0], bottom),
    ]
    canvas.paint(canvas.polygon(cone), "balloon", (190, 40, 130))
    shade = 1 - 0.35 * np.clip((canvas.columns - column) / radius, 0, 1)[..., None]
    # Stripes narrow towards the sides as they do on a ball.
    turned = np.arcsin(np.clip((canvas.columns - column) / radius, -1, 1)) * 2.4 + random.uniform(0, 6)
    stripes = (np.sin(turned * 1.7) > 0)[..., None].astype(np.float32)
    silk = _blend((232, 56, 150), (250, 130, 190), stripes) * shade
    canvas.paint(canvas.ellipse(column, row, (radius, radius * 1.1)), "balloon", silk)
    below = (canvas.rows > bottom) & (canvas.rows < bottom + basket[1] * 1.6)
    canvas.paint(below & (abs(canvas.columns - column) < basket[0]), "balloon", (134, 62, 84))


def _meadow(canvas: _Canvas, horizon: float) -> None:
    hills = canvas.noise((canvas.width / 2, canvas.height))[..., 0] * canvas.unit * 0.025
    depth = np.clip((canvas.rows - horizon) / (canvas.height - horizon), 0, 1)[..., None]
    colour = _blend((164, 200, 96), (92, 160, 56), depth)
    blades = canvas.noise((1.6, 4)) * 20 + canvas.noise((14, 8)) * 10
    flowers = (canvas.random.random((canvas.height, canvas.width)) < 0.006)[..., None] * np.float32(70)
    canvas.paint(canvas.rows > horizon + hills, "grass", colour + blades * (0.4 + depth) + flowers)


def _lake(canvas: _Canvas, horizon: float) -> None:
    random = canvas.random
    column = canvas.width * random.choice([0.22, 0.5, 0.78]) + canvas.unit * random.uniform(-0.1, 0.1)
    depth = canvas.height - horizon
    row = horizon + depth * random.uniform(0.45, 0.8)
    radii = (canvas.width * random.uniform(0.36, 0.55), depth * random.uniform(0.26, 0.38))
    near = np.clip((canvas.rows - horizon) / depth, 0.05, 1)
    waves = np.sin(canvas.rows * 1.5 / (0.35 + near) + canvas.noise((18, 6))[..., 0] * 2.5)[..., None]
    colour = _blend((92, 150, 208), (24, 84, 156), near[..., None]) + waves * 14
    shore = canvas.noise((canvas.width / 5, canvas.height / 5))[..., 0] * 0.16
    inside = ((canvas.columns - column) / radii[0]) ** 2 + ((canvas.rows - row) / radii[1]) ** 2 + shore <= 1
    canvas.paint(inside & (canvas.rows > horizon + canvas.unit * 0.04), "water", colour)


def _road(canvas: _Canvas, horizon: float) -> None:
    random = canvas.random
    far = canvas.width * random.uniform(0.3, 0.7)
    near = canvas.width * random.uniform(0.15, 0.85)
    width, bend = canvas.unit * random.uniform(0.4, 0.56), canvas.width * random.uniform(-0.16, 0.16)
    depth = np.clip((canvas.rows - horizon) / (canvas.height - horizon), 0, 1)
    centre = far + (near - far) * depth + bend * np.sin(depth * np.pi)
    offset = (canvas.columns - centre) / (width * (0.06 + 0.94 * depth) / 2)
    grey = np.asarray((104, 102, 112), np.float32) + canvas.noise((1.5, 1.5)) * 9
    on_road = (np.abs(offset) < 1) & (canvas.rows > horizon + canvas.unit * 0.03)
    canvas.paint(on_road, "road", grey)
    # Equal lengths on the ground shrink with distance: dashes follow the logarithm of depth.
    dash = np.sin(np.log(depth + 0.12) * 15) > 0
    canvas.paint(on_road & (np.abs(offset) < 0.06) & dash, None, (238, 232, 214))
    canvas.paint(on_road & (np.abs(np.abs(offset) - 0.9) < 0.045), None, (206, 204, 200))


def _things(canvas: _Canvas, horizon: float) -> list[Callable[[], None]]:
    """What stands on the ground, houses behind trees, each as a function that paints it."""
    random = canvas.random
    things: list[Callable[[], None]] = []
    columns = random.permutation(np.linspace(0.12, 0.88, 5))
    houses = int(random.integers(0, 3))
    trees = int(random.integers(1, 4))
    for index, share in enumerate(columns[: houses + trees]):
        column, size = canvas.width * (share + random.uniform(-0.05, 0.05)), random.uniform(0.8, 1.2)
        kind = _house if index < houses else _tree
        things.append(partial(kind, canvas, horizon, (column, size)))
    return things


def _house(canvas: _Canvas, horizon: float, place: tuple[float, float]) -> None:
    random = canvas.random
    column, size = place
    half, tall = canvas.unit * 0.15 * size, canvas.unit * random.uniform(0.2, 0.28) * size
    ground = horizon + canvas.unit * random.uniform(0.06, 0.16)
    wall = np.asarray([(222, 122, 84), (214, 96, 76), (232, 152, 96)][random.integers(3)], np.float32)
    bricks = ((canvas.rows.astype(int) % 4 == 0)[..., None]) * np.float32(-16) + canvas.noise((3, 2)) * 6
    box = (abs(canvas.columns - column) < half) & (canvas.rows > ground - tall) & (canvas.rows < ground)
    canvas.paint(box, "building", wall + bricks)
    roof = [(column - half * 1.2, ground - tall), (column, ground - tall * 1.6), (column + half * 1.2, ground - tall)]
    canvas.paint(canvas.polygon(roof), "building", np.asarray((150, 50, 44), np.float32) + canvas.noise((6, 1.5)) * 14)
    pane = half * 0.2
    for across in (-0.55, 0.55):
        for up in (0.35, 0.75):
            middle = (column + across * half, ground - up * tall)
            inside = (abs(canvas.columns - middle[0]) < pane) & (abs(canvas.rows - middle[1]) < pane)
            canvas.paint(inside & box, None, (252, 232, 150) if random.random() < 0.4 else (70, 66, 84))
    canvas.paint(box & (abs(canvas.columns - column) < pane) & (canvas.rows > ground - tall * 0.4), None, (96, 48, 40))


def _tree(canvas: _Canvas, horizon: float, place: tuple[float, float]) -> None:
    random = canvas.random
    column, size = place
    ground = horizon + canvas.unit * random.uniform(0.1, 0.3)
    tall = canvas.unit * random.uniform(0.3, 0.42) * size
    trunk = (abs(canvas.columns - column) < canvas.unit * 0.022) & (canvas.rows < ground)
    canvas.paint(trunk & (canvas.rows > ground - tall * 0.6), "tree", (94, 64, 40))
    leaves = np.asarray((26, 92, 48), np.float32) + canvas.noise((3, 3)) * 22 + canvas.noise((8, 8)) * 8
    crown = canvas.unit * random.uniform(0.12, 0.16) * size
    if random.random() < 0.4:
        for level in range(3):
            top, base = ground - tall * (1.05 - 0.22 * level), ground - tall * (0.58 - 0.2 * level)
            reach = crown * (0.6 + 0.2 * level)
            canvas.paint(
                canvas.polygon([(column - reach, base), (column, top), (column + reach, base)]), "tree", leaves
            )
        return
    for _ in range(5):
        middle = (column + crown * random.uniform(-0.6, 0.6), ground - tall * random.uniform(0.6, 0.9))
        canvas.paint(canvas.ellipse(*middle, (crown * 0.8, crown * 0.75)), "tree", leaves)
