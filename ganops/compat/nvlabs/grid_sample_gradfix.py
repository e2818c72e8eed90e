"""``torch_utils.ops.grid_sample_gradfix``: bilinear sampling with gradients of any order, which torch's own lacks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

enabled = False  # set by training loops; both states are the same here

BILINEAR, ZEROS, ALIGN_CORNERS = 0, 0, False
DIFFERENTIABLE = (True, True)


def grid_sample(input: Tensor, grid: Tensor) -> Tensor:
    """Sample ``[N, C, H, W]`` at ``[N, H', W', 2]`` (x, y), where -1 and 1 are the image's outer edges; 0 outside."""
    if torch.is_grad_enabled() and (input.requires_grad or grid.requires_grad):
        y: Tensor = _GridSample.apply(input, grid)  # type: ignore[no-untyped-call]
        return y
    return F.grid_sample(input, grid, "bilinear", "zeros", ALIGN_CORNERS)


class _GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(input, grid)
        return F.grid_sample(input, grid, "bilinear", "zeros", ALIGN_CORNERS)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        return _GridSampleBackward.apply(dy[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _GridSampleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dy: Tensor, input: Tensor, grid: Tensor) -> Any:
        ctx.save_for_backward(dy, input, grid)
        ctx.set_materialize_grads(False)
        return torch.ops.aten.grid_sampler_2d_backward(dy, input, grid, BILINEAR, ZEROS, ALIGN_CORNERS, DIFFERENTIABLE)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        dy, input, grid = ctx.saved_tensors
        to_input, to_grid = gradients
        if to_grid is None and not ctx.needs_input_grad[2]:
            # The gradient by the input is linear in dy and knows nothing of the input; its adjoint is the sampling.
            return None if to_input is None else grid_sample(to_input, grid), None, None
        higher = torch.is_grad_enabled()
        with torch.enable_grad():
            tensors = [dy, input, grid] if higher else [t.detach() for t in (dy, input, grid)]
            tensors = [t if t.requires_grad else t.detach().requires_grad_() for t in tensors]
            first = torch.autograd.grad(_sample(*tensors[1:]), tensors[1:], tensors[0], create_graph=True)
            known = [(a, b) for a, b in zip(first, gradients, strict=True) if b is not None]
            if not known:
                return None, None, None
            outputs, to_outputs = zip(*known, strict=True)
            return torch.autograd.grad(outputs, tensors, to_outputs, create_graph=higher, materialize_grads=True)


def _sample(input: Tensor, grid: Tensor) -> Tensor:
    """The same, of torch's differentiable operators alone: the four neighbours, weighted."""
    n, channels, height, width = input.shape
    x, y = ((grid + 1) * grid.new_tensor([width, height]) - 1).div(2).unbind(-1)
    left, top = x.detach().floor(), y.detach().floor()
    result = input.new_zeros(())
    for row, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            index = index.reshape(n, 1, -1).expand(n, channels, -1)
            pixels = input.flatten(2).gather(2, index).reshape(n, channels, *grid.shape[1:3])
            result = result + pixels * (weight_x * weight_y * inside)[:, None]
    return result
