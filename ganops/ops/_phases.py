"""Upsampling by two on a CPU where no gradient is needed: four small convolutions, and one pass over their results.

A transposed convolution of stride 2 makes pixel ``(2 i + y, 2 j + x)`` from every other tap, ``(y, x)`` the first: four
plain convolutions of the input, its phases, with as many multiplications in all. The filter that follows, noise, bias
and activation are applied while the phases are interleaved.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _backend
from .._formats import memory_format
from ..reference.modulated_conv2d import epilogue
from ..reference.upfirdn2d import upfirdn2d
from ._convolution import Geometry
from ._library import Operator, register_composed

_NAME = "modulated_conv2d_phases"


def serves(x: Tensor, weight: Tensor, up: int, down: int, padding: tuple[int, int, int, int]) -> bool:
    """Whether this is the way, but for gradients."""
    return (
        (up, down) == (2, 1)
        and min(padding) >= 0
        and min(weight.shape[-2:]) >= 2
        and memory_format(x) == torch.contiguous_format
        and _backend.has_cpu_kernel(_NAME, x)
    )


def upsample_and_finish(
    convolve: Callable[[Tensor, Tensor, Geometry], Tensor],
    x: Tensor,
    weight: Tensor,
    padding: tuple[int, int, int, int],
    f: Tensor | None,
    *finish: Any,
) -> Tensor:
    """The correlation of x with zeros in between, the filter, and all that ``finish`` lists.

    The padding is in the upsampled image; ``finish`` is scale, noise, bias and the activation.
    """
    height, width = weight.shape[-2:]
    phases = []
    for y_phase in range(2):
        for x_phase in range(2):
            taps = weight[..., (height - 1 - y_phase) % 2 :: 2, (width - 1 - x_phase) % 2 :: 2]
            around = (taps.shape[-2] - 1, taps.shape[-1] - 1)
            phases.append(convolve(x, taps, Geometry(padding=around)))
    x0, x1, y0, y1 = padding
    crop = (x0 - width + 1, x1 - width + 2, y0 - height + 1, y1 - height + 2)
    if f is None:
        f = x.new_ones(1, 1)
    elif f.ndim == 1:
        f = f.outer(f)
    y: Tensor = getattr(torch.ops.ganops, _NAME)(*phases, f.flip([0, 1]) * 4.0, *finish[:3], crop, *finish[3:])
    return y


def _reference(
    even_even: Tensor,
    even_odd: Tensor,
    odd_even: Tensor,
    odd_odd: Tensor,
    f: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    padding: tuple[int, int, int, int],
    *activation: Any,
) -> Tensor:
    """Interleave, filter with f (a correlation), finish."""
    height, width = even_even.shape[2] + odd_even.shape[2], even_even.shape[3] + even_odd.shape[3]
    image = even_even.new_empty(*even_even.shape[:2], height, width)
    for index, phase in enumerate((even_even, even_odd, odd_even, odd_odd)):
        image[:, :, index // 2 :: 2, index % 2 :: 2] = phase
    return epilogue(upfirdn2d(image, f, (1, 1), (1, 1), padding, True, 1.0), scale, noise, b, *activation)


def _fake(x: Tensor, even_odd: Tensor, odd_even: Tensor, odd_odd: Tensor, f: Tensor, *args: Any) -> Tensor:
    x0, x1, y0, y1 = args[3]
    height = x.shape[2] + odd_even.shape[2] + y0 + y1 - f.shape[0] + 1
    width = x.shape[3] + even_odd.shape[3] + x0 + x1 - f.shape[1] + 1
    return x.new_empty(*x.shape[:2], height, width)


register_composed(
    Operator(
        _NAME,
        "(Tensor even_even, Tensor even_odd, Tensor odd_even, Tensor odd_odd, Tensor f, Tensor? scale, Tensor? noise, "
        "Tensor? b, SymInt[4] padding, str act, float alpha, float gain, float clamp) -> Tensor",
        _reference,
        _fake,
    )
)
