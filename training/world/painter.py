"""START HERE for the world: a scene becomes a 128x128 picture in a flat storybook style.

The drawing carries the looks *detail* (a light pattern on the setting), *size* (of the subject)
and *outline* (ink around shapes); the finish carries saturation, warmth, contrast, brightness and
vignette, in that order. Every picture follows from its scene alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import skia
from numpy.typing import NDArray

from training.world.scene import LOOKS, SETTINGS, SIDE_PX, SUBJECTS, Scene

Image = NDArray[np.uint8]
"""A picture, H x W x 3, uint8 RGB."""

INK = (38, 28, 52)
SUBJECT_RADIUS_PX = 31.0
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def paint(scene: Scene) -> Image:
    """The picture of a scene, 128 x 128 x 3 uint8."""
    looks = dict(zip(LOOKS, (float(x) for x in scene.looks_L), strict=True))
    rng = np.random.default_rng(scene.seed)
    surface = skia.Surface(SIDE_PX, SIDE_PX)
    pen = _Pen(surface.getCanvas(), ink_px=1.9 * (1 + looks["outline"]))
    _SETTING_PAINTERS[SETTINGS[scene.setting]](pen, rng)
    _decorate(pen, SETTINGS[scene.setting], strength=(1 + looks["detail"]) / 2)
    with pen.placed(
        x_px=64 + float(rng.uniform(-6, 6)),
        y_px=67 + float(rng.uniform(-4, 4)),
        radius_px=SUBJECT_RADIUS_PX * 1.38 ** looks["size"],
    ):
        _SUBJECT_PAINTERS[SUBJECTS[scene.subject]](pen, rng)
    drawn = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[:, :, :3]
    return _finish((drawn / np.float32(255)).astype(np.float32), looks)


def _finish(image: NDArray[np.float32], looks: dict[str, float]) -> Image:
    luma = (image @ _LUMA)[..., None]
    vivid = luma + (image - luma) * (1 + 0.8 * looks["saturation"])
    warm = looks["warmth"]
    tinted = vivid * np.array([1 + 0.17 * warm, 1.0, 1 - 0.24 * warm], dtype=np.float32)
    mean = tinted.mean()
    lit = mean + (tinted - mean) * 1.55 ** looks["contrast"] + 0.21 * looks["brightness"]
    framed = np.clip(lit, 0, 1) * (1 - 0.36 * (1 + looks["vignette"]) * _CORNER_DISTANCE)
    finished: Image = (framed * 255 + 0.5).astype(np.uint8)
    return finished


def _corner_distance() -> NDArray[np.float32]:
    side = np.linspace(-1, 1, SIDE_PX, dtype=np.float32)
    radius = np.sqrt(side[:, None] ** 2 + side[None, :] ** 2)
    ramp = np.clip((radius - 0.62) / 0.62, 0, 1)
    smooth: NDArray[np.float32] = (ramp * ramp * (3 - 2 * ramp))[..., None]
    return smooth


_CORNER_DISTANCE = _corner_distance()


class _Pen:
    """Fills and inks shapes on a canvas; ink keeps its width in pixels at any scale."""

    def __init__(self, canvas: skia.Canvas, ink_px: float) -> None:
        self.canvas = canvas
        self.ink_px = ink_px
        self._scale = 1.0

    @contextmanager
    def placed(self, x_px: float, y_px: float, radius_px: float) -> Iterator[None]:
        """Inside the ``with``, coordinates are in units of ``radius_px`` around a point."""
        self.canvas.save()
        self.canvas.translate(x_px, y_px)
        self.canvas.scale(radius_px, radius_px)
        self._scale = radius_px
        yield
        self.canvas.restore()
        self._scale = 1.0

    def fill(self, path: skia.Path, colour: tuple[int, int, int], ink: float = 1.0) -> None:
        """Fill a shape and draw ``ink`` times the picture's outline around it."""
        self.canvas.drawPath(path, skia.Paint(AntiAlias=True, Color=skia.ColorSetRGB(*colour)))
        width_px = self.ink_px * ink
        if width_px >= 0.15:
            self.canvas.drawPath(path, self._stroke(INK, width_px / self._scale))

    def line(self, path: skia.Path, colour: tuple[int, int, int], width: float) -> None:
        """Draw along a path, ``width`` in the current units."""
        self.canvas.drawPath(path, self._stroke(colour, width))

    @staticmethod
    def _stroke(colour: tuple[int, int, int], width: float) -> skia.Paint:
        return skia.Paint(
            AntiAlias=True,
            Color=skia.ColorSetRGB(*colour),
            Style=skia.Paint.kStroke_Style,
            StrokeWidth=width,
            StrokeCap=skia.Paint.kRound_Cap,
            StrokeJoin=skia.Paint.kRound_Join,
        )


# Shapes


def _oval(x: float, y: float, rx: float, ry: float) -> skia.Path:
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry))
    return path


def _box(left: float, top: float, right: float, bottom: float) -> skia.Path:
    path = skia.Path()
    path.addRect(skia.Rect.MakeLTRB(left, top, right, bottom))
    return path


def _polygon(*points: tuple[float, float]) -> skia.Path:
    path = skia.Path()
    path.moveTo(*points[0])
    for point in points[1:]:
        path.lineTo(*point)
    path.close()
    return path


def _curve(*points: tuple[float, float]) -> skia.Path:
    """A closed shape through a start point and pairs of control and end points."""
    path = skia.Path()
    path.moveTo(*points[0])
    for control, end in zip(points[1::2], points[2::2], strict=True):
        path.quadTo(*control, *end)
    path.close()
    return path


def _symmetric(*half: tuple[float, float]) -> skia.Path:
    """A curve whose other half, back from the last point to the first, is this one's mirror image.

    The first and the last point lie on the axis, x = 0.
    """
    return _curve(*half, *((-x, y) for x, y in half[-2::-1]))


def _segment(x0: float, y0: float, x1: float, y1: float) -> skia.Path:
    path = skia.Path()
    path.moveTo(x0, y0)
    path.lineTo(x1, y1)
    return path


def _ridge(heights_px: list[float]) -> skia.Path:
    """Ground up to the given heights, evenly spaced and rounded."""
    path = skia.Path()
    step = SIDE_PX / (len(heights_px) - 1)
    path.moveTo(-4, heights_px[0])
    for i in range(1, len(heights_px)):
        x0, x1 = (i - 1) * step, i * step
        mid = (x0 + x1) / 2
        path.cubicTo(mid, heights_px[i - 1], mid, heights_px[i], x1, heights_px[i])
    path.lineTo(SIDE_PX + 4, heights_px[-1])
    path.lineTo(SIDE_PX + 4, SIDE_PX + 4)
    path.lineTo(-4, SIDE_PX + 4)
    path.close()
    return path


def _sky(pen: _Pen, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> None:
    shader = skia.GradientShader.MakeLinear(
        points=[(0, 0), (0, SIDE_PX * 0.75)],
        colors=[skia.ColorSetRGB(*top), skia.ColorSetRGB(*bottom)],
    )
    pen.canvas.drawPaint(skia.Paint(Shader=shader))


# Settings: cool and quiet colours, wide shapes


def _mountains(pen: _Pen, rng: np.random.Generator) -> None:
    _sky(pen, (142, 188, 220), (214, 226, 228))
    shift = float(rng.uniform(-7, 7))
    pen.fill(
        _polygon((-30 + shift, 104), (14 + shift, 30), (58 + shift, 104)), (112, 128, 152), 0.6
    )
    pen.fill(_polygon((2 + shift, 50), (14 + shift, 30), (26 + shift, 50)), (236, 240, 242), 0.4)
    pen.fill(
        _polygon((66 + shift, 104), (112 + shift, 22), (160 + shift, 104)), (96, 112, 140), 0.6
    )
    pen.fill(
        _polygon((100 + shift, 44), (112 + shift, 22), (124 + shift, 44)), (236, 240, 242), 0.4
    )
    pen.fill(_ridge([98, 93, 96, 92, 97]), (112, 142, 118), 0.6)


def _hills(pen: _Pen, rng: np.random.Generator) -> None:
    _sky(pen, (166, 212, 226), (226, 236, 216))
    shift = float(rng.uniform(-5, 5))
    pen.fill(_ridge([66 + shift, 54, 68, 52 - shift, 64]), (150, 190, 128), 0.6)
    pen.fill(_ridge([82, 90 - shift, 78, 88 + shift, 80]), (116, 168, 104), 0.6)
    pen.fill(_ridge([108, 102, 112 + shift, 104, 110]), (88, 142, 88), 0.6)


def _sea(pen: _Pen, rng: np.random.Generator) -> None:
    _sky(pen, (176, 218, 226), (224, 238, 236))
    shift = float(rng.uniform(-4, 4))
    pen.fill(_box(-4, 58 + shift, 132, 132), (86, 164, 186), 0.6)
    pen.fill(_ridge([78 + shift, 74, 79, 74, 78, 74, 79]), (62, 140, 172), 0.6)
    pen.fill(_ridge([100, 96 + shift, 101, 96, 100, 96, 101]), (44, 114, 152), 0.6)


def _town(pen: _Pen, rng: np.random.Generator) -> None:
    _sky(pen, (192, 196, 212), (228, 222, 220))
    greys = ((128, 136, 152), (152, 158, 168), (108, 118, 138), (140, 144, 160))
    tops = (36, 58, 44, 64, 50, 34, 54)
    for i, top in enumerate(tops):
        left = -4 + i * 19.5
        height = top + float(rng.uniform(-6, 6))
        pen.fill(_box(left, height, left + 19.5, 132), greys[i % 4], 0.6)
    pen.fill(_box(-4, 106, 132, 132), (94, 98, 110), 0.6)


def _night(pen: _Pen, rng: np.random.Generator) -> None:
    _sky(pen, (26, 30, 74), (62, 58, 116))
    shift = float(rng.uniform(-6, 6))
    pen.fill(_oval(102 + shift, 24, 13, 13), (226, 226, 206), 0.6)
    for x, y in ((14, 18), (36, 34), (58, 12), (80, 40), (18, 58), (112, 62), (70, 26), (44, 54)):
        pen.fill(_oval(x, y, 1.5, 1.5), (220, 222, 236), 0.0)
    pen.fill(_ridge([104, 98, 106 + shift / 2, 99, 104]), (34, 40, 76), 0.6)


def _desert(pen: _Pen, rng: np.random.Generator) -> None:
    _sky(pen, (190, 206, 202), (238, 228, 202))
    shift = float(rng.uniform(-6, 6))
    pen.fill(_ridge([72, 62 + shift / 2, 74, 66, 70]), (226, 200, 150), 0.6)
    pen.fill(_ridge([84 + shift / 2, 94, 82, 90 - shift / 2, 86]), (212, 180, 126), 0.6)
    pen.fill(_ridge([104, 110, 102 + shift / 2, 112, 106]), (194, 160, 106), 0.6)
    for x, top in ((16 + shift, 58), (110 + shift, 66)):
        pen.fill(_box(x - 3, top, x + 3, top + 28), (110, 146, 112), 0.6)
        pen.fill(_box(x + 3, top + 10, x + 9, top + 15), (110, 146, 112), 0.4)


_SETTING_PAINTERS: dict[str, Callable[[_Pen, np.random.Generator], None]] = {
    "mountains": _mountains,
    "hills": _hills,
    "sea": _sea,
    "town": _town,
    "night": _night,
    "desert": _desert,
}


# The look "detail": a light folk-art pattern over the setting, always at the same places


def _decorate(pen: _Pen, setting: str, strength: float) -> None:
    if strength < 0.03:
        return
    size_px = 3.1 * math.sqrt(strength)
    paint = skia.Paint(
        AntiAlias=True,
        Color=skia.ColorSetARGB(int(60 + 165 * strength), 250, 247, 236),
        Style=skia.Paint.kStroke_Style,
        StrokeWidth=0.7 + 1.0 * strength,
        StrokeCap=skia.Paint.kRound_Cap,
    )
    pattern = skia.Path()
    for row in range(11):
        for column in range(11):
            x = 12.8 * (column + 0.5 * (row % 2)) + 3.2
            y = 12.8 * row + 5.0
            _add_motif(pattern, setting, x, y, size_px)
    pen.canvas.drawPath(pattern, paint)


def _add_motif(path: skia.Path, setting: str, x: float, y: float, size: float) -> None:
    if setting in ("mountains", "desert"):
        path.moveTo(x - size, y + size / 2)
        path.lineTo(x, y - size / 2)
        path.lineTo(x + size, y + size / 2)
    elif setting == "hills":
        path.moveTo(x, y + size)
        path.lineTo(x, y - size)
        path.moveTo(x - size, y)
        path.lineTo(x, y + size)
        path.lineTo(x + size, y)
    elif setting == "sea":
        path.moveTo(x - size, y)
        path.quadTo(x - size / 2, y - size, x, y)
        path.quadTo(x + size / 2, y + size, x + size, y)
    elif setting == "town":
        path.addRect(skia.Rect.MakeLTRB(x - size * 0.7, y - size * 0.7, x + size * 0.7, y + size))
    else:
        path.moveTo(x - size, y)
        path.lineTo(x + size, y)
        path.moveTo(x, y - size)
        path.lineTo(x, y + size)


# Subjects: warm, saturated colours, drawn in units of their radius around the origin


def _flower(pen: _Pen, rng: np.random.Generator) -> None:
    pen.line(_segment(0, 0, 0.02, 1.15), (62, 118, 66), 0.13)
    pen.fill(
        _curve((0.02, 0.95), (0.5, 0.4), (0.62, 0.62), (0.45, 0.95), (0.02, 0.95)), (78, 140, 78)
    )
    turn = float(rng.uniform(0, math.pi / 3))
    for i in range(6):
        angle = turn + i * math.pi / 3
        x, y = 0.44 * math.cos(angle), -0.3 + 0.44 * math.sin(angle)
        pen.fill(_oval(x, y, 0.33, 0.33), (222, 70, 128))
    pen.fill(_oval(0, -0.3, 0.3, 0.3), (246, 196, 66))


def _fish(pen: _Pen, rng: np.random.Generator) -> None:
    side = 1.0 if rng.random() < 0.5 else -1.0
    pen.canvas.scale(side, 1)
    pen.fill(_polygon((0.5, 0.0), (1.12, -0.48), (1.0, 0.0), (1.12, 0.48)), (214, 88, 44))
    pen.fill(_curve((-0.2, -0.4), (0.15, -0.95), (0.4, -0.3)), (214, 88, 44))
    pen.fill(_oval(-0.15, 0, 0.82, 0.52), (240, 126, 54))
    pen.line(_segment(0.1, -0.36, 0.1, 0.36), (252, 222, 176), 0.13)
    pen.line(_segment(0.38, -0.26, 0.38, 0.26), (252, 222, 176), 0.1)
    pen.fill(_oval(-0.56, -0.12, 0.15, 0.15), (252, 250, 244), 0.7)
    pen.fill(_oval(-0.58, -0.12, 0.07, 0.07), INK, 0.0)


def _mushroom(pen: _Pen, rng: np.random.Generator) -> None:
    stem = _curve((-0.3, 0), (-0.2, 0.6), (-0.36, 1), (0, 1.1), (0.36, 1), (0.2, 0.6), (0.3, 0))
    pen.fill(stem, (244, 230, 206))
    cap = _curve((-1, 0.1), (-0.95, -1), (0, -1), (0.95, -1), (1, 0.1), (0, 0.36), (-1, 0.1))
    pen.fill(cap, (206, 48, 52))
    spots = ((-0.5, -0.32, 0.16), (0.04, -0.6, 0.19), (0.52, -0.26, 0.15), (0.02, -0.12, 0.12))
    for x, y, r in spots:
        pen.fill(_oval(x, y, r, r * 0.85), (252, 244, 232), 0.0)


def _boat(pen: _Pen, rng: np.random.Generator) -> None:
    pen.line(_segment(0, -1.05, 0, 0.45), (112, 70, 44), 0.1)
    pen.fill(_polygon((0.08, -0.98), (0.86, 0.28), (0.08, 0.28)), (252, 214, 96))
    pen.fill(_polygon((-0.1, -0.8), (-0.1, 0.28), (-0.68, 0.28)), (232, 84, 60))
    pen.fill(
        _curve(
            (-1.0, 0.42),
            (0, 0.5),
            (1.0, 0.42),
            (0.85, 1.0),
            (0.5, 0.96),
            (0, 1.0),
            (-0.5, 0.96),
            (-0.85, 1.0),
            (-1.0, 0.42),
        ),
        (168, 40, 66),
    )


def _house(pen: _Pen, rng: np.random.Generator) -> None:
    pen.fill(_box(0.32, -0.95, 0.56, -0.3), (150, 82, 68))
    pen.fill(_box(-0.72, -0.15, 0.72, 0.95), (248, 214, 150))
    pen.fill(_polygon((-0.95, -0.12), (0, -0.98), (0.95, -0.12)), (188, 62, 58))
    pen.fill(_box(-0.16, 0.36, 0.2, 0.95), (128, 70, 52), 0.7)
    for x in (-0.5, 0.4):
        pen.fill(_box(x - 0.02, 0.1, x + 0.22, 0.36), (150, 206, 226), 0.7)


def _rocket(pen: _Pen, rng: np.random.Generator) -> None:
    pen.fill(_polygon((-0.22, 0.6), (0.22, 0.6), (0.0, 1.2)), (250, 178, 52), 0.6)
    pen.fill(_polygon((-0.3, 0.05), (-0.74, 0.78), (-0.3, 0.6)), (206, 52, 66))
    pen.fill(_polygon((0.3, 0.05), (0.74, 0.78), (0.3, 0.6)), (206, 52, 66))
    body = _symmetric((0, -1.12), (0.44, -0.55), (0.34, 0.62), (0, 0.74))
    pen.fill(body, (240, 236, 238))
    nose = _symmetric((0, -1.12), (0.27, -0.78), (0.33, -0.55), (0, -0.42))
    pen.fill(nose, (206, 52, 66))
    pen.fill(_oval(0, -0.12, 0.18, 0.18), (96, 176, 216), 0.7)


def _balloon(pen: _Pen, rng: np.random.Generator) -> None:
    pen.line(_segment(-0.34, 0.3, -0.16, 0.8), (112, 74, 48), 0.05)
    pen.line(_segment(0.34, 0.3, 0.16, 0.8), (112, 74, 48), 0.05)
    envelope = _symmetric((0, 0.55), (-0.95, 0.1), (-0.82, -0.45), (-0.6, -1.1), (0, -1.1))
    pen.fill(envelope, (152, 72, 176))
    stripe = _symmetric((0, 0.55), (-0.5, 0.0), (-0.4, -0.55), (-0.3, -1.0), (0, -1.1))
    pen.fill(stripe, (246, 190, 72), 0.5)
    pen.fill(_box(-0.2, 0.76, 0.2, 1.08), (150, 96, 56))


def _tree(pen: _Pen, rng: np.random.Generator) -> None:
    pen.fill(_box(-0.13, 0.2, 0.13, 1.1), (120, 78, 52))
    for x, y, r in ((-0.42, 0.02, 0.45), (0.42, 0.02, 0.45), (0.0, -0.45, 0.56)):
        pen.fill(_oval(x, y, r, r), (226, 138, 40))
    pen.fill(_oval(0.0, -0.1, 0.46, 0.4), (226, 138, 40), 0.0)
    for x, y in ((-0.4, -0.05), (0.3, -0.1), (-0.05, -0.55), (0.12, 0.12)):
        pen.fill(_oval(x, y, 0.09, 0.09), (176, 40, 40), 0.0)


_SUBJECT_PAINTERS: dict[str, Callable[[_Pen, np.random.Generator], None]] = {
    "flower": _flower,
    "fish": _fish,
    "mushroom": _mushroom,
    "boat": _boat,
    "house": _house,
    "rocket": _rocket,
    "balloon": _balloon,
    "tree": _tree,
}
