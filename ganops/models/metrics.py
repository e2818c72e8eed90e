"""Metrics that need no other network: equivariance (EQ-T, EQ-T_frac, EQ-R) and perceptual path length (PPL).

Sources: Karras et al., "Alias-Free Generative Adversarial Networks" (2021), section 2 and appendix E, for the first
three; "A Style-Based Generator Architecture for Generative Adversarial Networks" (2019), section 4.1, for PPL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _checks, filter2d, upfirdn2d

PEAK_TO_PEAK = 2.0
"""The range of images, [-1, 1]."""

MAX_TRANSLATION = 1 / 8
"""Greatest translation along an axis, in image widths."""

LANCZOS_LOBES = 3
ROTATION_RADIUS = 16
"""Pixels from which the rotation's low-pass filter takes a value, on each side."""

ROTATION_BETA = 8.0
"""Shape of its window: side lobes below -80 dB."""

Moved = tuple[Tensor, Tensor]
"""An image [N, C, H, W], and [H, W]: which pixels nothing beyond the image's edges has touched."""


class Equivariance(NamedTuple):
    """Peak signal-to-noise ratios in dB: the image of a moved input against the moved image."""

    eq_t: float
    """Translations by whole pixels."""
    eq_t_frac: float
    """Translations by any distance."""
    eq_r: float
    """Rotations about the centre by any angle."""


@torch.no_grad()
def equivariance(synthesis: nn.Module, ws: Tensor, rng: torch.Generator | None = None) -> Equivariance:
    """How well a synthesis network's image follows its input: one random translation and rotation for each w.

    ``10 log10(2^2 / E[(g(t(z0); w) - t(g(z0; w)))^2])``: the network g draws what t has moved, or t moves what g has
    drawn. Translations are uniform in +-1/8 of the image along each axis, angles in +-180 degrees. The mean is over
    samples, channels and the pixels that nothing beyond the image's edges has touched.

    Args:
        synthesis: takes [1, ...] to a square image [1, C, R, R] in about [-1, 1]. Its buffer ``input.transform``
            [3, 3] takes homogeneous coordinates of the image, in image widths from the centre, to those of the input,
            as :class:`ganops.models.stylegan3.SynthesisInput`'s does; it is restored in the end.
        ws: latents [N, ...].
        rng: source of the motions, on the CPU. Default: torch's own.

    Raises:
        TypeError, ValueError: ws is no tensor or holds no sample; images are too small to be rotated.
    """
    if len(_checks.tensor("ws", ws)) == 0:
        raise ValueError(f"ws must hold at least one sample, got shape {list(ws.shape)}")
    transform: Tensor = synthesis.input.transform  # type: ignore[assignment, union-attr]
    still = transform.clone()

    def draw(w: Tensor, motion: Tensor) -> Tensor:
        """The image whose content moves by ``motion``: it is looked up where it came from."""
        transform.copy_(still @ torch.linalg.inv(motion).to(still))
        image: Tensor = synthesis(w)
        return image.double()

    squares, counts = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    try:
        for w in torch.split(ws, 1):
            image = draw(w, _translation(0, 0))
            size = image.shape[-1]
            x, y, turn = (torch.rand(3, generator=rng, dtype=torch.float64) * 2 - 1).tolist()
            x, y, angle = x * MAX_TRANSLATION * size, y * MAX_TRANSLATION * size, turn * math.pi
            whole_x, whole_y = round(x), round(y)
            everywhere = torch.ones(image.shape[2:], dtype=torch.bool, device=image.device)
            pairs: tuple[tuple[Moved, Moved], ...] = (
                (
                    (draw(w, _translation(whole_x / size, whole_y / size)), everywhere),
                    translate(image, whole_x, whole_y),
                ),
                ((draw(w, _translation(x / size, y / size)), everywhere), translate(image, x, y)),
                (rotate_spectrum(draw(w, _rotation(angle)), angle), rotate(image, angle)),
            )
            for i, ((actual, valid), (expected, also_valid)) in enumerate(pairs):
                error = (actual - expected)[:, :, valid & also_valid]
                squares[i] += error.square().sum().cpu()
                counts[i] += error.numel()
    finally:
        transform.copy_(still)
    if not counts.all():
        raise ValueError(f"images of {size} pixels are too small to be rotated by a filter of radius {ROTATION_RADIUS}")
    return Equivariance(*(10 * (PEAK_TO_PEAK**2 * counts / squares).log10()).tolist())


def translate(image: Tensor, x: float, y: float) -> Moved:
    """Move the image's content by x pixels to the right and y down; by a Lanczos filter where they are no integers.

    Args:
        image: [N, C, H, W].

    Returns:
        The moved image, and which pixels are valid.

    Raises:
        ValueError: it moves by its size or more.
    """
    if abs(x) >= image.shape[3] or abs(y) >= image.shape[2]:
        raise ValueError(f"x and y must be less than the image's {list(image.shape[:1:-1])} pixels, got {x} and {y}")
    whole_x, whole_y = math.floor(x), math.floor(y)
    valid = torch.ones_like(image[:1, :1])
    moved = F.pad(image, [whole_x, -whole_x, whole_y, -whole_y])
    valid = F.pad(valid, [whole_x, -whole_x, whole_y, -whole_y])
    if (x, y) != (whole_x, whole_y):
        f = _lanczos(y - whole_y)[:, None] * _lanczos(x - whole_x)
        padding = [LANCZOS_LOBES, LANCZOS_LOBES - 1] * 2
        moved = upfirdn2d(moved, f.to(image), padding=padding)
        valid = -F.max_pool2d(F.pad(-valid, padding), 2 * LANCZOS_LOBES, stride=1)
    return moved, valid[0, 0] > 0


def _lanczos(fraction: float) -> Tensor:
    """The taps that delay a signal by a fraction of a sample; the first looks ahead."""
    distance = torch.arange(1 - LANCZOS_LOBES, LANCZOS_LOBES + 1, dtype=torch.float64) - fraction
    f = torch.sinc(distance) * torch.sinc(distance / LANCZOS_LOBES)
    return f / f.sum()


def rotate(image: Tensor, angle: float) -> Moved:
    """Rotate the image's content about the centre, keeping the frequencies that both grids of pixels can carry.

    Before, the spectrum is that of a square grid; after, it must be that of the upright one: what remains is the
    intersection of a square and the rotated square.

    Args:
        image: [N, C, H, H].
        angle: radians, from the x axis (to the right) towards the y axis (down).

    Returns:
        The rotated image, and which pixels are valid.
    """
    size = image.shape[-1]
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=2)
    source = pixels @ _rotation(angle)[:2, :2]  # of row vectors, this is the inverse rotation
    return _lowpass_at(image, source, -angle)


def rotate_spectrum(image: Tensor, angle: float) -> Moved:
    """Keep of an image the frequencies that :func:`rotate` leaves in one that it has rotated by ``angle``."""
    size, margin = image.shape[-1], ROTATION_RADIUS - 1
    axis = torch.arange(-margin, margin + 1, dtype=torch.float64)
    kernel = _two_grid_lowpass(axis, axis[:, None], angle)
    valid = torch.zeros(size, size, dtype=torch.bool, device=image.device)
    valid[margin : size - margin, margin : size - margin] = True
    return filter2d(image, kernel.to(image.device)), valid


def _lowpass_at(image: Tensor, points: Tensor, angle: float) -> Moved:
    """The image under the low-pass filter of two grids at ``angle``, at points [H, W, 2] from its centre."""
    size, radius = image.shape[-1], ROTATION_RADIUS
    points = points.to(image.device) + (size - 1) / 2
    corner = points.floor().long() - (radius - 1)
    valid = ((corner >= 0) & (corner + 2 * radius <= size)).all(dim=2)
    offsets = torch.arange(2 * radius, device=image.device)
    result = torch.zeros((*image.shape[:2], *valid.shape), dtype=image.dtype, device=image.device)
    for row in range(len(points)):  # a row at a time: memory
        here = valid[row]
        taps = corner[row, here][:, None] + offsets[:, None]  # [points, taps, 2]
        distance = points[row, here][:, None] - taps
        kernel = _two_grid_lowpass(distance[:, None, :, 0], distance[:, :, None, 1], angle).to(image.dtype)
        values = image[:, :, taps[:, :, None, 1], taps[:, None, :, 0]]
        result[:, :, row, here] = (values * kernel).sum(dim=(3, 4))
    return result, valid


def _two_grid_lowpass(x: Tensor, y: Tensor, angle: float) -> Tensor:
    """Windowed impulse response, at (x, y) in pixels, whose pass band two unit grids at an angle have in common.

    The pass band is an octagon P: the square [-1/2, 1/2]^2 cut by a rotated one. By the divergence theorem, with an
    edge's outward normal n, middle m and vector e,

        integral over P of exp(2 pi i f.u) df = sum over edges of |e| n.u exp(2 pi i m.u) sinc(e.u) / (2 pi i |u|^2).

    Opposite edges make a sine of each exponential.
    """
    angle = angle % (math.pi / 2)  # quarter turns change nothing
    # How far an edge of the upright square reaches on either side of its normal; the rotated square's are mirrored.
    before, after = math.tan(math.pi / 4 - angle / 2) / 2, math.tan(angle / 2) / 2
    length = before + after
    square = x.square() + y.square()
    total = torch.zeros_like(square)
    for direction, middle in (
        (0.0, after - before),
        (math.pi / 2, after - before),
        (angle, before - after),
        (angle + math.pi / 2, before - after),
    ):
        normal = x * math.cos(direction) + y * math.sin(direction)
        along = y * math.cos(direction) - x * math.sin(direction)
        total += length * normal * torch.sin(math.pi * (normal + along * middle)) * torch.sinc(along * length)
    # At the centre it is the octagon's area: eight triangles of height 1/2.
    centre = square == 0
    response = torch.where(centre, 2 * length, total / (math.pi * square.masked_fill(centre, 1)))
    window = torch.special.i0(ROTATION_BETA * (1 - square / ROTATION_RADIUS**2).clamp_min(0).sqrt())
    window = window.where(square < ROTATION_RADIUS**2, 0) / torch.special.i0(torch.tensor(ROTATION_BETA))
    result: Tensor = response * window
    return result


def _translation(x: float, y: float) -> Tensor:
    return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64)


def _rotation(angle: float) -> Tensor:
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)


@torch.no_grad()
def perceptual_path_length(
    mapping: Callable[[Tensor], Tensor],
    synthesis: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    *,
    space: str = "w",
    sampling: str = "full",
    epsilon: float = 1e-4,
    batch: int = 1,
    trim: float = 0.01,
    rng: torch.Generator | None = None,
) -> float:
    """How far images move along paths between latents: ``E[distance(g(t), g(t + epsilon)) / epsilon^2]``.

    Paths are straight lines in w, or great circles in z; smooth, disentangled latent spaces have short ones.

    Args:
        mapping: z [N, D] to w [N, ...].
        synthesis: w [N, ...] to images. Its noise must not change from call to call (``noise_mode="const"``).
        distance: two batches of images to their distances [N], quadratic in small differences, as LPIPS is.
        z: normal latents [2 * pairs, D]; sample i is one end of a path and sample pairs + i the other.
        space: "w" or "z", where paths are interpolated.
        sampling: "full" draws t from [0, 1) for each path, "end" takes its beginning.
        epsilon: step along the path.
        batch: paths at once.
        trim: quantile of the distances left out at each end (the StyleGAN2 paper's), below 1/2; 0 is the plain mean.
        rng: source of t, on the CPU. Default: torch's own.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.

    Source: Karras et al. (2019), section 4.1.
    """
    if _checks.tensor("z", z).ndim != 2 or len(z) == 0 or len(z) % 2:
        raise ValueError(f"z must be [2 * pairs, D] with at least one pair, got {list(z.shape)}")
    if space not in INTERPOLATE:
        raise ValueError(f"space must be one of {', '.join(INTERPOLATE)}, got {space!r}")
    if sampling not in ("full", "end"):
        raise ValueError(f"sampling must be full or end, got {sampling!r}")
    if _checks.number("epsilon", epsilon) <= 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if not 0 <= _checks.number("trim", trim) < 0.5:
        raise ValueError(f"trim must be in [0, 1/2), got {trim}")
    batch = _checks.integer("batch", batch, 1)

    found = []
    firsts, seconds = (torch.split(half, batch) for half in z.chunk(2))
    for first, second in zip(firsts, seconds, strict=True):
        t = torch.rand(len(first), generator=rng) if sampling == "full" else torch.zeros(len(first))
        t = t.to(z)
        ends = (first, second) if space == "z" else (mapping(first), mapping(second))
        points = torch.cat([INTERPOLATE[space](*ends, at) for at in (t, t + epsilon)])
        before, after = synthesis(mapping(points) if space == "z" else points).chunk(2)
        found.append(distance(before, after).double().flatten() / epsilon**2)
    lengths = torch.cat(found)
    low, high = lengths.quantile(trim), lengths.quantile(1 - trim)
    return lengths[(lengths >= low) & (lengths <= high)].mean().item()


def _lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return a.lerp(b, t.reshape(-1, *[1] * (a.ndim - 1)))


def _slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Unit vectors on the great circle from a's direction to b's (Shoemake 1985)."""
    a, b = F.normalize(a), F.normalize(b)
    cosine = (a * b).sum(dim=1, keepdim=True)
    across = F.normalize(b - cosine * a)
    angle = t[:, None] * cosine.acos()
    return a * angle.cos() + across * angle.sin()


INTERPOLATE = {"w": _lerp, "z": _slerp}
