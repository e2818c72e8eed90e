"""no_weight_gradients: what it leaves out, what it leaves exact."""

from typing import Any

import pytest
import torch
from cases import ADAPTIVE_MODULATED_CONV2D, MODULATED_CONV2D, Case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import ganops

WANTS = {  # operator -> whether its arguments ask for that
    torch.ops.aten.convolution_backward.default: lambda *args: args[-1][1],
    torch.ops.ganops.mixed_convolution_grad.default: lambda *args: args[-1][0],
}


class WeightGradients(TorchDispatchMode):
    """Counts the operators that compute a weight's, or a bank's, gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += WANTS.get(func, lambda *_: 0)(*args)
        return func(*args, **(kwargs or {}))


NAMES = ("3x3", "1x1", "up2", "up2-1x1", "down2", "uneven-padding", "one-sample", "one-filter")
LAYERS = [case for case in MODULATED_CONV2D + ADAPTIVE_MODULATED_CONV2D if case.name in NAMES]


def backward(case: Case, disable: bool) -> dict[str, Tensor | None]:
    tensors = case.tensors(torch.float64)
    y = case.run(tensors)
    with ganops.no_weight_gradients(disable):
        y.square().sum().backward()
    return {name: t.grad for name, t in tensors.items()}


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_only_the_weight_has_none(case: Case, forced: str) -> None:
    without, usual = backward(case, disable=True), backward(case, disable=False)
    assert without.pop("weight") is None and usual.pop("weight") is not None
    for name, gradient in usual.items():
        torch.testing.assert_close(without[name], gradient)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_no_convolution_is_computed_for_it(case: Case) -> None:
    counts = []
    for disable in (True, False):
        with WeightGradients() as counted:
            backward(case, disable)
        counts.append(counted.count)
    assert counts == [0, 1]


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_nor_where_autograd_is_asked_for_other_gradients(case: Case) -> None:
    tensors = case.tensors(torch.float64)
    y = case.run(tensors).square().sum()
    with WeightGradients() as counted:
        torch.autograd.grad(y, [tensors["x"], tensors["styles"]])
    assert counted.count == 0


def penalty(case: Case, disable_first: bool, disable_second: bool) -> tuple[dict[str, Tensor | None], int]:
    """Gradients of the squared gradients of x and styles, and the convolutions for weights' gradients in the first."""
    tensors = case.tensors(torch.float64)
    y = case.run(tensors).pow(3).sum()
    with ganops.no_weight_gradients(disable_first), WeightGradients() as counted:
        found = torch.autograd.grad(y, list(tensors.values()), create_graph=True, allow_unused=True)
    first = [g for name, g in zip(tensors, found, strict=True) if name in ("x", "styles")]
    with ganops.no_weight_gradients(disable_second):
        torch.stack([g.square().sum() for g in first]).sum().backward()
    return {name: t.grad for name, t in tensors.items()}, counted.count


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_a_penalty_on_gradients_reaches_the_weight(case: Case) -> None:
    (usual, count), (without, no_count) = penalty(case, False, False), penalty(case, True, False)
    assert (count, no_count) == (1, 0) and usual["weight"] is not None
    for name, gradient in usual.items():
        torch.testing.assert_close(without[name], gradient)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_the_second_pass_may_leave_it_out_too(case: Case) -> None:
    (usual, _), (without, _) = penalty(case, False, False), penalty(case, False, True)
    assert without.pop("weight") is None
    for name, gradient in without.items():
        torch.testing.assert_close(gradient, usual[name])


def test_compiled_functions_keep_what_held_when_they_were_compiled() -> None:
    torch._dynamo.reset()
    case = LAYERS[0]
    names, values = list(case.shapes), list(case.tensors(torch.float64).values())
    compiled = torch.compile(lambda *v: case.run(dict(zip(names, v, strict=True))), backend="aot_eager", fullgraph=True)
    with ganops.no_weight_gradients():
        compiled(*values).sum().backward()
    gradients = {name: t.grad for name, t in zip(names, values, strict=True)}
    assert gradients.pop("weight") is None and all(g is not None for g in gradients.values())


def test_nesting_and_errors() -> None:
    assert not ganops.weight_gradients_disabled()
    with ganops.no_weight_gradients():
        with ganops.no_weight_gradients(False):
            assert ganops.weight_gradients_disabled()
        with pytest.raises(KeyError), ganops.no_weight_gradients():
            raise KeyError
        assert ganops.weight_gradients_disabled()
    assert not ganops.weight_gradients_disabled()
    with pytest.raises(TypeError, match="disable must be a bool, got int"), ganops.no_weight_gradients(1):
        pass
