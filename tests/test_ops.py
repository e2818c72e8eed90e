"""Every implementation against the float64 reference, on every case: values, gradients of any order, memory formats."""

import pytest
import torch
from cases import CASES, DTYPES, FORMATS, SMALL, TOLERANCE, Case, relative_error
from torch import Tensor

import ganops


def gradients(case: Case, tensors: dict[str, Tensor], order: int) -> list[Tensor]:
    """The result, and the gradients of the sum of squares, of that one's sum of squares, and so on."""
    results = [case.run(tensors)]
    inputs = list(tensors.values())
    value = results[0].square().sum()
    for _ in range(order):
        if not value.requires_grad:
            break
        found = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True)
        found = [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]
        results += found
        value = sum((g.square().sum() for g in found), start=torch.zeros((), dtype=value.dtype, device=value.device))
    return results


def reference_gradients(case: Case, tensors: dict[str, Tensor], order: int) -> list[Tensor]:
    exact = {name: t.detach().cpu().double().requires_grad_() for name, t in tensors.items()}
    with ganops.backend("reference"):
        return gradients(case, exact, order)


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float, factors: tuple[float, ...]) -> None:
    assert len(actual) == len(expected)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.shape == e.shape
        error = relative_error(a.detach().cpu(), e.detach())
        assert error <= tolerance * factors[min(i, len(factors) - 1)], f"result {i}: error {error:.1e}"


CASES_IN_FORMATS = [(case, f) for case in CASES for f in FORMATS if len(case.shapes["x"]) == 4 or f == FORMATS[0]]


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("case", "memory_format"), CASES_IN_FORMATS, ids=str)
def test_values_and_formats(case: Case, dtype: torch.dtype, memory_format: torch.memory_format, forced, device) -> None:
    tensors = case.tensors(dtype, device, memory_format)
    y = case.run(tensors)
    assert y.dtype == dtype
    if tensors["x"].is_contiguous():
        assert y.is_contiguous()
    elif y.numel():
        assert y.is_contiguous(memory_format=memory_format)
    expected = reference_gradients(with_float16_normalisation(case, dtype), tensors, order=0)
    assert_close([y], expected, TOLERANCE[dtype], (1,))


def with_float16_normalisation(case: Case, dtype: torch.dtype) -> Case:
    """A modulated convolution's pre-normalisation depends on the dtype, which the float64 reference does not see."""
    if not case.op.endswith("modulated_conv2d") or "prenormalize" in case.options or dtype != torch.float16:
        return case
    return Case(case.op, case.name, case.shapes, {**case.options, "prenormalize": "max"})


@pytest.mark.parametrize("dtype", [pytest.param(torch.float64, marks=pytest.mark.emulated), torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case: Case, dtype: torch.dtype, forced, device) -> None:
    tensors = case.tensors(dtype, device)
    order = 3 if case in SMALL and dtype == torch.float64 else 2
    actual, expected = gradients(case, tensors, order), reference_gradients(case, tensors, order)
    # Each order squares and sums what came before: errors grow with it.
    assert_close(actual, expected, TOLERANCE[dtype], (1, 10, 10, 10, 100))


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradients_in_16_bits(case: Case, dtype: torch.dtype, forced, device) -> None:
    tensors = case.tensors(dtype, device)
    y = case.run(tensors)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    actual = torch.autograd.grad(y, list(tensors.values()), seed)
    exact = {name: t.detach().cpu().double().requires_grad_() for name, t in tensors.items()}
    with ganops.backend("reference"):
        exact_y = with_float16_normalisation(case, dtype).run(exact)
        expected = torch.autograd.grad(exact_y, list(exact.values()), seed.cpu().double())
    assert_close(list(actual), list(expected), TOLERANCE[dtype], (3,))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradcheck(case: Case, forced, device) -> None:
    tensors = case.tensors(torch.float64, device)
    names, inputs = list(tensors), tuple(tensors.values())

    def function(*values: Tensor) -> Tensor:
        # Few outputs keep the numerical Jacobian small.
        return case.run(dict(zip(names, values, strict=True))).flatten()[::7]

    torch.autograd.gradcheck(function, inputs, fast_mode=True)
    torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.emulated
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_any_strides(case: Case, forced, device) -> None:
    tensors = case.tensors(torch.float64, device)
    expected = case.run(tensors)
    odd = {}
    for name, t in tensors.items():
        wide = torch.full((*t.shape[:-1], 2 * t.shape[-1] + 1) if t.ndim else (), float("nan"), dtype=t.dtype)
        wide = wide.to(device)
        view = wide[..., 1::2] if t.ndim else wide
        view.copy_(t.detach())
        odd[name] = view
    torch.testing.assert_close(case.run(odd), expected.detach())
    transposed = {name: t.detach().mT.contiguous().mT if t.ndim > 1 else t.detach() for name, t in tensors.items()}
    torch.testing.assert_close(case.run(transposed), expected.detach())


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_arguments_are_left_alone(case: Case, forced, device) -> None:
    tensors = case.tensors(torch.float32, device)
    before = {name: t.detach().clone() for name, t in tensors.items()}
    filters = {k: v.clone() for k, v in case.options.items() if isinstance(v, Tensor)}
    gradients(case, tensors, order=2)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)
    assert all(torch.equal(case.options[k], v) for k, v in filters.items())


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus"])
def test_bias_act_special_values(act: str, dtype: torch.dtype, forced, device) -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 5.0, -5.0], dtype=dtype, device=device)
    y = ganops.bias_act(x, dim=0, act=act, gain=1.0, clamp=3.0)
    exact = {"relu": torch.relu, "lrelu": lambda v: torch.nn.functional.leaky_relu(v, 0.2), "linear": lambda v: v}
    function = exact.get(act) or getattr(torch.nn.functional, act, None) or getattr(torch, act)
    torch.testing.assert_close(y, function(x.double()).clamp(-3, 3).to(dtype), equal_nan=True)


@pytest.mark.emulated
@pytest.mark.parametrize(
    "act", ["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish", "gelu"]
)
def test_clamped_outputs_have_no_gradient(act: str, forced, device) -> None:
    x = torch.linspace(-4, 4, 41, dtype=torch.float64, device=device, requires_grad=True)
    y = ganops.bias_act(x, dim=0, act=act, gain=2.0, clamp=0.5)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert (y.abs() >= 0.5).any() and (dx[y.abs() >= 0.5] == 0).all()
    (exact,) = torch.autograd.grad(ganops.bias_act(x, dim=0, act=act, gain=2.0).sum(), x)
    torch.testing.assert_close(dx[y.abs() < 0.5], exact[y.abs() < 0.5])


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("clamp", [256 * 0.5**0.5, 2**0.5, 0.1, 3e-6])
def test_a_clamp_between_two_values_of_the_dtype(clamp: float, dtype: torch.dtype, forced, device) -> None:
    x = torch.tensor([-1000.0, 0.0, 1000.0], dtype=dtype, device=device).reshape(1, 1, 1, 3).requires_grad_()
    one = torch.ones(1, 1, 1, 1, dtype=dtype, device=device)
    convolved = ganops.modulated_conv2d(x, one, one[0, 0], demodulate=False, clamp=clamp)
    for y in (ganops.bias_act(x, clamp=clamp), convolved):
        assert torch.equal(y.abs().flatten(), torch.tensor([clamp, 0, clamp], dtype=dtype, device=device))
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert dx.flatten().tolist() == [0, 1, 0]


@pytest.mark.emulated
def test_filtered_lrelu_decides_by_the_sign_bit(forced, device) -> None:
    x = torch.tensor([0.0, -0.0, 3.0, -3.0, float("nan")], dtype=torch.float64, device=device)
    x = x.reshape(1, 1, 1, 5).requires_grad_()
    y = ganops.filtered_lrelu(x, gain=1.0, slope=0.5, clamp=2.0)
    assert y.flatten().tolist()[:4] == [0.0, -0.0, 2.0, -1.5] and y.isnan().flatten().tolist()[4]
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.flatten().tolist()[:4] == [1.0, 0.5, 0.0, 0.5]


@pytest.mark.emulated
def test_nothing_but_the_support_reaches_an_output(forced, device) -> None:
    x = torch.zeros(1, 1, 9, 40, device=device)
    x[0, 0, 4, 20] = float("nan")
    f = torch.tensor([1.0, 2.0, 1.0], device=device)
    y = ganops.upfirdn2d(x, f, padding=1)
    expected = torch.zeros_like(x, dtype=torch.bool)
    expected[0, 0, 3:6, 19:22] = True
    assert torch.equal(y.isnan(), expected)


def test_modulation_commutes_with_batching(forced, device) -> None:
    """A sample alone equals the same sample in a batch, where no statistic goes across the batch."""
    generator = torch.Generator().manual_seed(0)
    x, w, s = (torch.randn(*size, generator=generator).to(device) for size in ((3, 4, 6, 6), (5, 4, 3, 3), (3, 4)))
    together = ganops.modulated_conv2d(x, w, s, padding=1)
    alone = torch.cat([ganops.modulated_conv2d(x[i : i + 1], w, s[i : i + 1], padding=1) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_demodulated_outputs_have_unit_deviation(forced, device) -> None:
    """Weight demodulation's purpose (StyleGAN2, section 2.2): unit normal input gives unit normal output."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 32, 32, generator=generator).to(device)
    w = torch.randn(48, 64, 3, 3, generator=generator).to(device)
    s = (torch.randn(2, 64, generator=generator) * 3 + 1).to(device)
    assert abs(ganops.modulated_conv2d(x, w, s).std().item() - 1) < 0.02
