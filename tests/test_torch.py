"""The operators as citizens of torch: opcheck, compile, export, shapes of any size, autocast."""

from typing import Any

import pytest
import torch
from cases import BLUR, CASES, DOWN12, SMALL, UP12, Case
from torch import Tensor

import ganops
from ganops.ops._library import COMPOSED, OPERATORS

OPS = torch.ops.ganops


def image(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_(grad)


CHANNELS_LAST = image(2, 3, 9, 8).to(memory_format=torch.channels_last)
CODES = torch.randint(0, 3, (2, 3, 20, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8) * 0b01010101
UP2_SWISH = (2, 1, [1, 2, 2, 1], "swish", 0.0, 1.0, 0.5)
CALLS: list[tuple[Any, tuple[Any, ...]]] = [
    (OPS.bias_act, (image(2, 3, 5, 4), image(3), 1, "lrelu", 0.2, 1.0, -1.0)),
    (OPS.bias_act, (CHANNELS_LAST, None, 1, "swish", 0.0, 1.0, 0.5)),
    (OPS.bias_act_grad, (image(2, 3, 5, 4), image(2, 3, 5, 4), None, 1, "tanh", 0.0, 1.0, -1.0, 1)),
    (OPS.bias_act_grad, (image(2, 3, 5, 4), image(2, 3, 5, 4), image(3), 1, "gelu", 0.0, 1.0, -1.0, 2)),
    (OPS.upfirdn2d, (image(2, 3, 9, 8), BLUR, [2, 2], [1, 1], [2, 1, 2, 1], False, 4.0)),
    (
        OPS.upfirdn2d,
        (CHANNELS_LAST, None, [1, 2], [3, 1], [0] * 4, True, 1.0),
    ),
    (OPS.filtered_lrelu, (image(2, 3, 9, 8), UP12, DOWN12, image(3), 2, 2, [9, 8, 9, 8], 1.0, 0.2, 0.7, False, True)),
    (
        OPS.filtered_lrelu,
        (image(2, 3, 9, 8, grad=False), UP12, None, None, 2, 1, [9, 8, 9, 8], 1.0, 0.2, -1.0, True, False),
    ),
    (
        OPS.filtered_lrelu_grad,
        (image(2, 3, 9, 8), UP12, DOWN12, CODES, 23, [1, -2], 2, 2, [9, 8, 9, 8], 1.0, 0.2, False),
    ),
    (
        OPS.modulated_conv2d_epilogue,
        (image(2, 3, 5, 4), image(2, 3), image(1, 1, 5, 4), image(3), "lrelu", 0.2, 1.0, -1.0),
    ),
    (
        OPS.modulated_conv2d_epilogue_,
        (image(2, 3, 5, 4, grad=False), None, image(1, 1, 5, 4, grad=False), None, "lrelu", 0.2, 1.0, -1.0),
    ),
    (
        OPS.scaled_conv2d,
        (image(2, 3, 5, 4), image(4, 3, 3, 3), image(2, 3), image(2, 4), image(1, 1, 11, 9), image(4), *UP2_SWISH),
    ),
    (OPS.scaled_conv2d, (CHANNELS_LAST, image(4, 3, 1, 1), *[None] * 4, 1, 2, [0] * 4, "lrelu", 0.2, 1.0, -1.0)),
    (
        OPS.modulated_conv2d_phases,
        (
            *(image(2, 3, h, w, grad=False) for h in (5, 4) for w in (4, 3)),
            *(BLUR, image(2, 3, grad=False), None, None, [1, 2, 0, 1], "lrelu", 0.2, 1.0, -1.0),
        ),
    ),
    (OPS.winograd_conv2d, (image(2, 3, 5, 9, grad=False), image(4, 3, 3, 3, grad=False), None, None, 1, 2)),
    (OPS.winograd_conv2d_weight_grad, (image(2, 4, 5, 9, grad=False), image(2, 3, 5, 9, grad=False), None, None, 1, 1)),
    (OPS.gemm_conv2d, (image(2, 3, 5, 9, grad=False), image(4, 3, 2, 3, grad=False), None, None, 1, 2, True, False)),
    (OPS.filter_energy, (image(4, 3, 3, 3, grad=False),)),
    (OPS.mixed_convolution, (image(2, 3, 5, 4), image(2, 4, 3, 3, 3), image(2, 2), 1, [1, 1], False, [0, 0])),
    (OPS.mixed_convolution, (CHANNELS_LAST, image(2, 3, 4, 3, 3), image(2, 2), 2, [0, 0], True, [1, 0])),
    (
        OPS.mixed_convolution_grad,
        (
            *(image(2, 4, 5, 4), image(2, 3, 5, 4), image(2, 4, 3, 3, 3), image(2, 2)),
            1,
            [1, 1],
            False,
            [0, 0],
            [True, True],
        ),
    ),
]


@pytest.mark.parametrize(("op", "args"), CALLS, ids=[str(op) for op, _ in CALLS])
def test_opcheck(op: Any, args: tuple[Any, ...]) -> None:
    torch.library.opcheck(op.default, args)


def test_opcheck_misses_no_operator() -> None:
    assert {op.default.name() for op, _ in CALLS} == {f"ganops::{operator.name}" for operator in OPERATORS + COMPOSED}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", SMALL[::3], ids=str)
def test_compile_without_graph_breaks(case: Case, dynamic: bool) -> None:
    torch._dynamo.reset()
    tensors = case.tensors(torch.float32)
    names, values = list(tensors), list(tensors.values())
    compiled = torch.compile(
        lambda *v: case.run(dict(zip(names, v, strict=True))), backend="aot_eager", fullgraph=True, dynamic=dynamic
    )
    expected, actual = case.run(tensors), compiled(*values)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual.square().sum(), values), torch.autograd.grad(expected.square().sum(), values)
    )


class Layer(torch.nn.Module):
    def forward(self, x: Tensor, w: Tensor, s: Tensor, b: Tensor) -> Tensor:
        y = ganops.modulated_conv2d(x, w, s, padding=1, bias=b, act="lrelu")
        y = ganops.filtered_lrelu(y, UP12, DOWN12, b, up=2, down=2, padding=10)
        return ganops.bias_act(ganops.upsample2d(y, BLUR), b, act="swish", clamp=4)


def test_export_with_dynamic_shapes(tmp_path) -> None:
    args = (image(4, 3, 8, 9, grad=False), image(4, 3, 3, 3, grad=False), image(4, 3, grad=False), image(4, grad=False))
    n, h, w = (torch.export.Dim(name, min=4, max=64) for name in "nhw")
    program = torch.export.export(Layer(), args, dynamic_shapes=({0: n, 2: h, 3: w}, None, {0: n}, None))
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    other = (image(5, 3, 11, 7, grad=False), args[1], image(5, 3, grad=False), args[3])
    torch.testing.assert_close(loaded(*other), Layer()(*other))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shapes_without_data(case: Case) -> None:
    """On meta tensors an op computes the shape, dtype and strides that it has on data."""
    tensors = case.tensors(torch.float16)
    meta = {name: t.detach().to("meta") for name, t in tensors.items()}
    expected = case.run(tensors)
    actual = Case(case.op, case.name, case.shapes, options_on_meta(case)).run(meta)
    assert (actual.shape, actual.dtype, actual.stride()) == (expected.shape, expected.dtype, expected.stride())


def options_on_meta(case: Case) -> dict[str, Any]:
    return {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in case.options.items()}


def test_more_than_2_to_the_31_elements() -> None:
    x = torch.empty(2, 64, 8192, 8192, device="meta", dtype=torch.float16)
    f = DOWN12.to("meta")
    assert ganops.bias_act(x).shape == x.shape
    assert ganops.upfirdn2d(x, f, up=3, padding=11).shape == (2, 64, 3 * 8192 + 11, 3 * 8192 + 11)
    y = ganops.filtered_lrelu(x.requires_grad_(), f, f, up=2, down=2, padding=[11, 10, 11, 10])
    assert y.shape == x.shape and y.numel() > 2**31
    (dx,) = torch.autograd.grad(y, x, y)
    assert dx.shape == x.shape


def test_autocast() -> None:
    x, w, s, b = image(2, 3, 8, 8), image(4, 3, 3, 3), image(2, 3), image(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ganops.modulated_conv2d(x, w, s, padding=1, bias=b)
        z = ganops.bias_act(y, b, act="lrelu")
        u = ganops.filtered_lrelu(z, UP12, DOWN12, b, up=2, down=2, padding=10)
        same = ganops.upfirdn2d(x, BLUR, padding=2)
    assert (y.dtype, z.dtype, u.dtype, same.dtype) == (torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.float32)
    torch.testing.assert_close(same, ganops.upfirdn2d(x, BLUR, padding=2))
    torch.testing.assert_close(y.float(), ganops.modulated_conv2d(x, w, s, padding=1, bias=b), rtol=0.02, atol=0.02)
    for gradient, value in zip(torch.autograd.grad(u.float().sum(), (x, w, s, b)), (x, w, s, b), strict=True):
        assert gradient.dtype == value.dtype and gradient.isfinite().all()


def test_reference_ignores_autocast() -> None:
    x = image(2, 3, 8, 8)
    with ganops.backend("reference"):
        expected = ganops.upfirdn2d(x, BLUR, padding=2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(ganops.upfirdn2d(x, BLUR, padding=2), expected, rtol=0, atol=0)


def test_no_codes_are_kept_without_a_gradient() -> None:
    x = image(1, 2, 8, 8)
    args = (UP12, DOWN12, None, 2, 2, [9, 8, 9, 8], 1.0, 0.2, -1.0, False)
    assert OPS.filtered_lrelu(x, *args, False)[1].numel() == 0
    y = OPS.filtered_lrelu(x, *args, False)[0]
    with pytest.raises(RuntimeError, match="save_codes=False"):
        y.sum().backward()
