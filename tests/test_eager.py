"""The short way to an operator gives what torch's dispatcher gives, and leaves alone what others want to see."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import BLUR
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import ganops
from ganops import _backend, _eager

OPS = torch.ops.ganops
B = torch.tensor([0.5, -1.0, 0.25])
# The public function, and the dispatcher's own way to the same.
CALLS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "bias_act": (
        lambda x: ganops.bias_act(x, B.to(x.dtype), act="swish", gain=1.5, clamp=2.0),
        lambda x: OPS.bias_act(x, B.to(x.dtype), 1, "swish", 0.0, 1.5, 2.0),
    ),
    "upfirdn2d": (
        lambda x: ganops.upfirdn2d(x, BLUR, up=2, padding=[2, 1, 2, 1]),
        lambda x: OPS.upfirdn2d(x, BLUR, [2, 2], [1, 1], [2, 1, 2, 1], False, 1.0),
    ),
    "filtered_lrelu": (
        lambda x: ganops.filtered_lrelu(x, BLUR, BLUR, up=2, down=2, padding=3),
        lambda x: OPS.filtered_lrelu(x, BLUR, BLUR, None, 2, 2, [3] * 4, 2**0.5, 0.2, -1.0, False, x.requires_grad)[0],
    ),
}
calls = pytest.mark.parametrize(("short", "long"), CALLS.values(), ids=CALLS)


def image(**options: Any) -> Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), **options)


def gradients(function: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Of order 1 to 3."""
    results, y = [], function(x)
    for _ in range(3):
        (y,) = torch.autograd.grad(y.square().sum() + x.pow(3).sum(), x, create_graph=True)
        results.append(y)
    return results


@calls
def test_values_and_gradients_equal_the_dispatchers(short: Any, long: Any) -> None:
    x = image(requires_grad=True)
    assert torch.equal(short(x), long(x))
    for actual, expected in zip(gradients(short, x), gradients(long, x), strict=True):
        assert torch.equal(actual, expected)
    with torch.no_grad():
        y = short(x)
    assert torch.equal(y, long(x)) and not y.requires_grad


@calls
def test_the_short_way_is_taken(short: Any, long: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher's way to gradients leaves another node in the graph than the short one."""
    x = image(requires_grad=True)
    assert "Generated" in long(x).grad_fn.name() and "Generated" not in short(x).grad_fn.name()
    monkeypatch.setattr(_eager, "_is_watched", lambda args: True)
    assert short(x).grad_fn.name() == long(x).grad_fn.name()


@calls
def test_saved_tensors_and_inputs_needed_are_the_same(short: Any, long: Any) -> None:
    def saved(function: Any) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
            function(image(requires_grad=True))
        return shapes

    assert saved(short) == saved(long)


@calls
def test_transforms_of_torch_func(short: Any, long: Any) -> None:
    def loss(x: Tensor) -> Tensor:
        return short(x).square().sum()

    x, v = image(), image().flip(0)
    torch.testing.assert_close(torch.func.grad(loss)(x), gradient(long, x))
    torch.testing.assert_close(torch.func.vmap(lambda x: short(x[None])[0])(x), long(x))
    along = torch.func.jvp(torch.func.grad(loss), (x,), (v,))[1]
    x.requires_grad_()
    (slope,) = torch.autograd.grad(long(x).square().sum(), x, create_graph=True)
    torch.testing.assert_close(along, torch.autograd.grad(slope, x, v)[0])


@calls
@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode(short: Any, long: Any, requires_grad: bool) -> None:
    """Against the derivative in reverse, which is linear in its weights."""
    x, v = image(dtype=torch.float64), image(dtype=torch.float64).flip(0)
    with forward_ad.dual_level():
        y, tangent = forward_ad.unpack_dual(short(forward_ad.make_dual(x.clone().requires_grad_(requires_grad), v)))
    assert torch.allclose(y, long(x)) and y.requires_grad == requires_grad
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    (dx,) = torch.autograd.grad(long(x.requires_grad_()), x, weights)
    torch.testing.assert_close((tangent * weights).sum(), (dx * v).sum())
    torch.testing.assert_close(torch.func.jvp(short, (x.detach(),), (v,))[1], tangent.detach())


def test_transforms_of_a_composed_operator() -> None:
    def convolved(x: Tensor, styles: Tensor) -> Tensor:
        return ganops.modulated_conv2d(x, weight, styles, bias=B.double(), act="lrelu")

    x, v = image(dtype=torch.float64), image(dtype=torch.float64).flip(0)
    weight, styles = torch.ones(3, 3, 3, 3, dtype=x.dtype), torch.ones(2, 3, dtype=x.dtype)
    y, tangent = torch.func.jvp(convolved, (x, styles), (v, styles))
    torch.testing.assert_close(y, convolved(x, styles))
    step = 1e-6
    ahead, behind = (convolved(x + h * v, styles + h * styles) for h in (step, -step))
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
    each = torch.func.vmap(lambda x, styles: convolved(x[None], styles[None])[0])(x, styles)
    torch.testing.assert_close(each, convolved(x, styles))


def test_forward_mode_of_a_bias() -> None:
    x, b, v = image(), B.clone(), torch.ones_like(B)
    _, tangent = torch.func.jvp(lambda b: ganops.bias_act(x, b, act="lrelu"), (b,), (v,))
    assert torch.equal(tangent, torch.where(x + b.view(3, 1, 1) < 0, 0.2 * 2**0.5, 2**0.5))


@calls
def test_batched_gradients(short: Any, long: Any) -> None:
    x = image(requires_grad=True)
    y = short(x)
    v = torch.stack([torch.ones_like(y), y.detach()])
    batched = torch.autograd.grad(y, x, v, is_grads_batched=True, retain_graph=True)[0]
    torch.testing.assert_close(batched, torch.stack([torch.autograd.grad(y, x, u, retain_graph=True)[0] for u in v]))


@calls
def test_jit_trace_sees_the_operator(short: Any, long: Any) -> None:
    for x in (image(), image(requires_grad=True)):
        traced = torch.jit.trace(short, x, check_trace=False)
        assert "ganops::" in str(traced.graph)
        assert torch.equal(traced(2 * x), long(2 * x))


@calls
def test_modes_see_the_call(short: Any, long: Any) -> None:
    seen: list[str] = []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    for mode in (Functions, Dispatches):
        for x in (image(), image(requires_grad=True)):
            seen.clear()
            with mode():
                y = short(x)
            assert any("ganops" in name for name in seen) and torch.equal(y, long(x))
            assert y.requires_grad == x.requires_grad


class Named(Tensor):
    """A subclass by __torch_function__ alone."""


class Wrapper(Tensor):
    """A subclass by __torch_dispatch__ that holds another tensor."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Wrapper":
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, requires_grad=held.requires_grad
        )
        made.held = held.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        unwrap = lambda t: t.held if isinstance(t, Wrapper) else t  # noqa: E731
        wrap = lambda t: Wrapper(t) if isinstance(t, Tensor) else t  # noqa: E731
        kwargs = kwargs or {}
        result = func(*torch.utils._pytree.tree_map(unwrap, args), **torch.utils._pytree.tree_map(unwrap, kwargs))
        return return_and_correct_aliasing(func, args, kwargs, torch.utils._pytree.tree_map(wrap, result))


@calls
def test_subclasses(short: Any, long: Any) -> None:
    x = image(requires_grad=True)
    expected = gradient(long, x)
    named, wrapped = x.detach().as_subclass(Named).requires_grad_(), Wrapper(x)
    assert isinstance(short(named), Named) and torch.equal(gradient(short, named).as_subclass(Tensor), expected)
    y, dx = short(wrapped), gradient(short, wrapped)
    assert isinstance(y, Wrapper) and isinstance(dx, Wrapper) and torch.equal(dx.held, expected)


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x if x.requires_grad else x.detach().requires_grad_()
    return torch.autograd.grad(function(x).square().sum(), x)[0]


@calls
def test_inference_mode_and_parameters(short: Any, long: Any) -> None:
    with torch.inference_mode():
        y = short(image())
    assert y.is_inference() and torch.equal(y, long(image()))
    parameter = torch.nn.Parameter(image())
    assert torch.equal(gradient(short, parameter), gradient(long, image()))


@calls
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(short: Any, long: Any, reentrant: bool) -> None:
    x = image(requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(short, x, use_reentrant=reentrant)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0] if not reentrant else backward(y, x), gradient_of_sum(long))


def backward(y: Tensor, x: Tensor) -> Tensor:
    y.sum().backward()
    assert x.grad is not None
    return x.grad


def gradient_of_sum(function: Callable[[Tensor], Tensor]) -> Tensor:
    x = image(requires_grad=True)
    return torch.autograd.grad(function(x).sum(), x)[0]


@calls
def test_compilers_see_the_operator(short: Any, long: Any) -> None:
    def names(graph: torch.fx.Graph) -> str:
        return " ".join(str(node.target) for node in graph.nodes)

    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return short(x)

    seen: list[str] = []

    def compiler(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        seen.append(names(module.graph))
        return module.forward

    torch._dynamo.reset()
    for x in (image(), image(requires_grad=True)):
        y = torch.compile(short, backend=compiler, fullgraph=True)(x)
        assert torch.equal(y, long(x)) and y.requires_grad == x.requires_grad
        seen += [names(torch.export.export(Module(), (x,), strict=strict).graph) for strict in (False, True)]
    seen.append(names(make_fx(short)(image()).graph))
    assert len(seen) == 7 and all("ganops." in name for name in seen)


@calls
def test_autocast(short: Any, long: Any) -> None:
    """Outside, x keeps its dtype; so it does inside."""
    x = image(requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = short(x)
        assert torch.equal(y, long(x)) and y.dtype == x.dtype
        assert torch.equal(gradient(short, x), gradient(long, x))


@calls
def test_reference_backend_takes_no_kernel(short: Any, long: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: Any) -> None:
        raise AssertionError("a kernel was called")

    for key in _backend._operators:
        monkeypatch.setitem(_backend._operators, key, forbidden)
    with pytest.raises(AssertionError, match="a kernel was called"):
        short(image())
    with ganops.backend("reference"):
        for x in (image(), image(requires_grad=True)):
            torch.testing.assert_close(short(x), long(x))
        torch.testing.assert_close(gradient(short, x), gradient(long, x))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(
    ("op", "arguments", "message"),
    [
        ("upfirdn2d", (BLUR, [1, 1], [1, 1], [-9, 0, 0, 0], False, 1.0), "at least 1x1"),
        ("bias_act", (None, 1, "sine", 0.0, 1.0, -1.0), "act must"),
        ("bias_act", (torch.ones(1), 1, "linear", 0.0, 1.0, -1.0), "b must"),
        ("bias_act", (torch.ones(9, dtype=torch.float16), 1, "linear", 0.0, 1.0, -1.0), "b must"),
        ("bias_act", (None, 4, "linear", 0.0, 1.0, -1.0), "dim must"),
        ("filtered_lrelu", (BLUR, BLUR, torch.ones(1), 2, 2, [3, 3, 3, 3], 1.0, 0.2, -1.0, False, False), "b must"),
    ],
)
def test_a_kernels_error_is_the_same_on_both_ways(op: str, arguments: Any, message: str, requires_grad: bool) -> None:
    """Arguments that no kernel takes, past the checks of the public functions."""
    x, messages = image(requires_grad=requires_grad), []
    for way in (getattr(OPS, op), _backend._operators["ganops", op]):
        with pytest.raises(RuntimeError) as caught:
            way(x, *arguments)
        messages.append(str(caught.value).splitlines()[0])
    assert messages[0] == messages[1] and message in messages[0]
