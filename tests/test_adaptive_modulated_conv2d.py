"""adaptive_modulated_conv2d: its two ways to the weights' energy, filters that cancel one another, export."""

import pytest
import torch
from cases import TOLERANCE, relative_error

import ganops
from ganops.ops.adaptive_modulated_conv2d import energy_by_gram, energy_by_sample, mixed_energy


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_energies_agree(dtype: torch.dtype) -> None:
    bank, mix, squares = normal(3, 5, 4, 3, 3, dtype=dtype), normal(2, 3, dtype=dtype).softmax(1), normal(2, 4).square()
    expected = ((mix.double() @ bank.double().flatten(1)).view(2, 5, 4, 9).square().sum(3) @ squares[:, :, None])[
        ..., 0
    ]
    for energy in (energy_by_gram, energy_by_sample, mixed_energy):
        assert relative_error(energy(bank, mix, squares.to(dtype)), expected) < TOLERANCE[dtype]


def test_filters_that_cancel_one_another() -> None:
    bank = normal(1, 64, 32, 3, 3, dtype=torch.float32)
    x, bank = normal(16, 32, 8, 8, dtype=torch.float32), torch.cat([bank, -bank]).requires_grad_()
    logits = torch.stack([torch.linspace(0.3, 0.301, 16), torch.full((16,), 0.3)], 1)
    assert ganops.adaptive_modulated_conv2d(x, bank, torch.zeros(16, 32), logits, padding=1).isfinite().all()


def test_one_filter_is_modulated_conv2d() -> None:
    x, weight, styles = normal(2, 3, 6, 6), normal(4, 3, 3, 3), normal(2, 3)
    adaptive = ganops.adaptive_modulated_conv2d(x, weight[None], styles, normal(2, 1), padding=1)
    torch.testing.assert_close(adaptive, ganops.modulated_conv2d(x, weight, styles + 1, padding=1))


class Layer(torch.nn.Module):
    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return ganops.adaptive_modulated_conv2d(*tensors, padding=1, act="lrelu")


def test_export_with_any_batch() -> None:
    bank = normal(3, 4, 3, 3, 3)
    n, h = (torch.export.Dim(name, min=4, max=64) for name in "nh")
    args = (normal(4, 3, 8, 8), bank, normal(4, 3), normal(4, 3))
    program = torch.export.export(Layer(), args, dynamic_shapes=(({0: n, 2: h}, None, {0: n}, {0: n}),))
    other = (normal(6, 3, 9, 8), bank, normal(6, 3), normal(6, 3))
    torch.testing.assert_close(program.module()(*other), Layer()(*other))
