"""Where a part lies in the picture, and the picture with the part where the good ones have it.

A pose is a turn and a shift of the whole picture. It is found in a sketch: gray, without slow changes of light, SKETCH_SIDE
pixels on its longer side. The turns permitted are tried one by one, each by a cross-correlation over all shifts; the best
one is refined by Gauss-Newton steps on the squared difference (Lucas & Kanade 1981, IJCAI). What a part is compared with,
the reference, is the mean of the first good sketches, each brought to where most of them lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Pixels, PreprocessSpec, picture_in_frame

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
SKETCH_SIDE = 128
# Light that changes over more than this share of the side is left out of a sketch.
SLOW_LIGHT = 1 / 16
# Parts may lie off their place by this share of the picture's sides.
MOST_SHIFT = 0.2
# Degrees between two turns that are tried; the refinement catches what lies between.
TURN_STEP = 3.0
GAUSS_NEWTON_STEPS = 4
# Good pictures that the reference is made of, and those among them that are tried as its first draft.
REFERENCE_PICTURES, DRAFTS, ROUNDS = 48, 8, 3


@dataclass(frozen=True)
class Align:
    """degrees: the largest turn of a part to be undone, either way; 0 for shifts alone, 180 for parts that lie anyhow."""

    degrees: float

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise InputError(f"--align {self.degrees:g}: degrees that a part may be turned either way, 0 to 180")

    @property
    def turns(self) -> list[float]:
        """The turns that are tried, degrees."""
        count = int(np.ceil(self.degrees / TURN_STEP))
        return [turn for turn in TURN_STEP * np.arange(-count, count + 1) if turn > -180]


@dataclass(frozen=True)
class Pose:
    """How a part lies, against the reference. x, y: its shift to the right and down, as shares of the picture's width and
    height. degrees: its turn, clockwise, about the picture's centre. match: correlation with the reference, 1 at best."""

    x: float
    y: float
    degrees: float
    match: float


class Aligner:
    """Finds poses against a reference, a sketch float32 [h, w], and undoes them."""

    def __init__(self, align: Align, reference: Floats) -> None:
        self.align, self.reference = align, reference
        self._size = reference.shape[0], reference.shape[1]
        self._window = _window(self._size)
        self._turns = align.turns
        self._expected = [
            np.conj(np.fft.rfft2(self._weighed(_moved(reference, _matrix(self._size, -turn, 0, 0)))))
            for turn in self._turns
        ]
        self._too_far = _too_far(self._size)
        self._ours = self._weighed(reference)

    def pose(self, pixels: Pixels) -> Pose:
        """The pose of the part in a picture, uint8 [h, w, 3]; of another shape than the reference's it is stretched."""
        return self.pose_of(sketch(pixels, self._size))

    def pose_of(self, found: Floats) -> Pose:
        """The pose of the part in a sketch of the reference's size."""
        degrees, x, y = self._refined(found, self._coarse(found))
        match = float((self._weighed(_moved(found, _matrix(self._size, degrees, x, y))) * self._ours).sum())
        return Pose(x / self._size[1], y / self._size[0], (degrees + 180) % 360 - 180, match)

    def placed(self, pixels: Pixels, pose: Pose, spec: PreprocessSpec) -> Pixels:
        """The picture with the part in its place, uint8 [h, w, 3] at the size it has in the model's frame, without bars.

        What comes in from outside of the picture repeats its rim.
        """
        small = without_bars(pixels, spec)
        height, width = small.shape[:2]
        matrix = self._in_box(pose, (0, 0, width, height))
        rim = _overhang(matrix, width, height)
        padded = np.pad(small, ((rim, rim), (rim, rim), (0, 0)), mode="edge")
        image = Image.fromarray(padded).transform(
            (width, height),
            Image.Transform.AFFINE,
            _coefficients(_translation(rim, rim) @ matrix),
            Image.Resampling.BICUBIC,
        )
        return np.asarray(image)

    def in_picture(self, anomaly_map: Floats, pose: Pose, shape: tuple[int, ...], spec: PreprocessSpec) -> Floats:
        """The map [height, width] of a placed picture as one of the picture as it came, of shape [h, w, ...].

        What the part's frame does not hold gets the map's lowest value.
        """
        lowest = float(anomaly_map.min())
        back = _inverse(self._in_box(pose, picture_in_frame(shape, spec)))
        return np.asarray(_moved(anomaly_map - np.float32(lowest), back) + np.float32(lowest))

    def in_part(self, place: Doubles, pose: Pose, shape: tuple[int, ...], spec: PreprocessSpec) -> Doubles:
        """Where [row, column], as shares of the model's frame, of a picture as it came lies in the placed picture."""
        size = np.array([spec.width, spec.height])
        x, y = place[::-1] * size
        back = _inverse(self._in_box(pose, picture_in_frame(shape, spec))) @ np.array([x, y, 1.0])
        within: Doubles = np.clip(back[:2] / size, 0.0, 1.0 - 1e-9)[::-1]
        return within

    def _coarse(self, found: Floats) -> Doubles:
        """The best of the turns with its best shift: degrees, and pixels of the sketch to the right and down."""
        spectrum, best = np.fft.rfft2(self._weighed(found)), (-np.inf, 0.0, 0)
        for turn, expected in zip(self._turns, self._expected, strict=True):
            correlation = np.fft.irfft2(spectrum * expected, self._size)
            correlation[self._too_far] = -np.inf
            at = int(correlation.argmax())
            best = max(best, (float(correlation.flat[at]), turn, at))
        y, x = np.unravel_index(best[2], self._size)
        signed = [(int(at) + side // 2) % side - side // 2 for at, side in zip((x, y), self._size[::-1], strict=True)]
        return np.array([best[1], *signed], np.float64)

    def _refined(self, found: Floats, start: Doubles) -> Doubles:
        """A pose (degrees, x, y) nearer to the least squared difference than `start`; `start` when there is none."""
        height, width = self._size
        down, right = np.mgrid[:height, :width] + 0.5
        right, down = right - width / 2, down - height / 2
        pose, weights = start.copy(), self._window
        best, least = start, np.inf
        for _ in range(GAUSS_NEWTON_STEPS + 1):
            moved = _moved(found, _matrix(self._size, *pose))
            gain = float((moved * self.reference * weights).sum() / ((self.reference**2 * weights).sum() + 1e-9))
            difference = gain * self.reference - moved
            squared = float((difference**2 * weights).sum() / max(gain, 1e-6) ** 2)
            if squared < least:
                best, least = pose.copy(), squared
            by_row, by_column = np.gradient(moved)
            turned = _turn(pose[0])
            along = np.einsum("ij,jhw->ihw", turned, np.stack([by_column, by_row]))
            by_turn = along[0] * (turned[0, 1] * right - turned[0, 0] * down) + along[1] * (
                turned[0, 0] * right + turned[0, 1] * down
            )
            slopes = np.stack([np.deg2rad(by_turn), along[0], along[1]], axis=-1).reshape(-1, 3)
            normal = (slopes * weights.reshape(-1, 1)).T
            step = np.linalg.solve(normal @ slopes + 1e-6 * np.eye(3), normal @ difference.ravel())
            pose = pose + np.clip(step, -2.0, 2.0)
        return best

    def _weighed(self, values: Floats) -> Doubles:
        """Without its mean under the window, faded out towards the rim, of length 1."""
        centred = (values - (values * self._window).sum() / self._window.sum()) * self._window
        weighed: Doubles = centred / np.sqrt((centred**2).sum() + 1e-9)
        return weighed

    def _in_box(self, pose: Pose, box: tuple[int, int, int, int]) -> Doubles:
        """Matrix from places of a placed picture that fills a box (left, top, width, height) to those of the original."""
        left, top, width, height = box
        to_box = _translation(left, top) @ np.diag([width / self._size[1], height / self._size[0], 1.0])
        matrix = _matrix(self._size, pose.degrees, pose.x * self._size[1], pose.y * self._size[0])
        boxed: Doubles = to_box @ matrix @ _inverse(to_box)
        return boxed


def make_reference(align: Align, pictures: list[Pixels]) -> Floats:
    """The reference of good pictures [h, w, 3]: the part in its usual place, a sketch float32 of the first one's shape.

    Raises InputError when nothing can be seen in them.
    """
    size = sketch_size(pictures[0])
    sketches = [sketch(pixels, size) for pixels in pictures]
    if max(float(found.std()) for found in sketches) < 0.5:
        raise InputError("--align: nothing can be seen in the pictures that a part could be found by")
    others = sketches[: 3 * DRAFTS]
    drafts = [Aligner(align, draft) for draft in sketches[:DRAFTS]]
    matches = [np.mean([draft.pose_of(found).match for found in others]) for draft in drafts]
    reference = sketches[int(np.argmax(matches))]
    for _ in range(ROUNDS):
        aligner = Aligner(align, reference)
        poses = [aligner.pose_of(found) for found in sketches]
        moves = np.array([(pose.degrees, pose.x * size[1], pose.y * size[0]) for pose in poses])
        mean = np.mean([_moved(s, _matrix(size, *move)) for s, move in zip(sketches, moves, strict=True)], axis=0)
        middle = np.median(moves, axis=0)
        # Of parts that lie anyhow no turn is the usual one.
        turn = middle[0] if align.degrees < 90 else 0.0
        reference = _moved(np.asarray(mean, np.float32), _inverse(_matrix(size, turn, middle[1], middle[2])))
    return reference


def sketch_size(pixels: Pixels) -> tuple[int, int]:
    """Height and width of the sketch of a picture [h, w, 3]."""
    height, width = (max(8, round(SKETCH_SIDE * side / max(pixels.shape[:2]))) for side in pixels.shape[:2])
    return height, width


def sketch(pixels: Pixels, size: tuple[int, int]) -> Floats:
    """Gray levels of a picture uint8 [h, w, 3] above or below those around, float32 of a size [height, width]."""
    gray = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    slow = gray.filter(ImageFilter.GaussianBlur(SLOW_LIGHT * max(size)))
    return np.asarray(gray, np.float32) - np.asarray(slow, np.float32)


def without_bars(pixels: Pixels, spec: PreprocessSpec) -> Pixels:
    """The picture at the size it has in the model's frame, without the bars of a letterbox."""
    _, _, width, height = picture_in_frame(pixels.shape, spec)
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _turn(degrees: float) -> Doubles:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _inverse(matrix: Doubles) -> Doubles:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _translation(x: float, y: float) -> Doubles:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _matrix(size: tuple[int, ...], degrees: float, x: float, y: float) -> Doubles:
    """Matrix from places (x, y, 1) of the part in its usual pose to those it has when turned and shifted, in pixels."""
    height, width = size
    turned = np.eye(3)
    turned[:2, :2] = _turn(degrees)
    matrix: Doubles = _translation(x + width / 2, y + height / 2) @ turned @ _translation(-width / 2, -height / 2)
    return matrix


def _overhang(matrix: Doubles, width: int, height: int) -> int:
    """Pixels by which the corners of a picture, sent through the matrix, lie outside of it; and what bicubic looks at."""
    corners = (matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], np.float64))[:2].T
    return 2 + int(np.ceil(max(0.0, -corners.min(), (corners - [width, height]).max())))


def _coefficients(matrix: Doubles) -> tuple[float, ...]:
    return tuple(map(float, matrix[:2].ravel()))


def _moved(values: Floats, matrix: Doubles) -> Floats:
    """values [h, w] looked up where the matrix sends each place; 0 outside."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(
        image.transform(image.size, Image.Transform.AFFINE, _coefficients(matrix), Image.Resampling.BILINEAR)
    )


def _window(size: tuple[int, ...]) -> Floats:
    """Hann's window over both sides, float32 [h, w]."""
    rows, columns = (np.hanning(side + 2)[1:-1] for side in size)
    return np.outer(rows, columns).astype(np.float32)


def _too_far(size: tuple[int, ...]) -> NDArray[Any]:
    """Which shifts of a circular correlation [h, w] are beyond MOST_SHIFT."""
    rows, columns = (np.abs(np.fft.fftfreq(side)) > MOST_SHIFT for side in size)
    return np.asarray(rows[:, None] | columns[None])
