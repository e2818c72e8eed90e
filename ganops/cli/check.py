"""``python -m ganops check``: every operator on this machine's GPU or CPU against the float64 reference."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import BAD_ARGUMENT, FAILED, CommandError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DESCRIPTION = """Run every operator, forward and backward, in every dtype and memory format, on the GPU if this machine
has one that the kernels serve, else on the CPU, and compare with the reference in float64. Errors are the greatest
difference over the root mean square of the reference. Exits with 1 if one is too large."""

# Greatest error of a result: a few roundings of each type. A gradient goes through twice as many.
TOLERANCE = {"float64": 1e-13, "float32": 3e-6, "float16": 4e-3, "bfloat16": 3e-2}
GRADIENT_FACTOR = 3


@dataclass(frozen=True)
class Case:
    """A call of ganops.<op>: shapes of its differentiable tensors, lengths or sizes of its filters, other arguments.

    A convolution is torch's or, by_kernel, that of our own kernel, whatever the cost model prefers.
    """

    op: str
    name: str
    shapes: dict[str, tuple[int, ...]]
    filters: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    by_kernel: bool = False


def _cases() -> list[Case]:
    """What the networks of the StyleGAN family call, on odd sizes that leave every kernel a ragged edge."""
    image, bias = (2, 3, 35, 37), (3,)
    names = ["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish", "gelu"]
    cases = [Case("bias_act", act, {"x": image, "b": bias}, {}, {"act": act}) for act in names]
    resampling: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
        ("blur 4x4", (4, 4), {"padding": [2, 1, 2, 1]}),
        ("up 2, 4x4", (4, 4), {"up": 2, "padding": [2, 1, 2, 1], "gain": 4.0}),
        ("down 2, 4x4", (4, 4), {"down": 2, "padding": 1}),
        ("up 2, 12 taps", (12,), {"up": 2, "padding": 6, "gain": 4.0}),
        ("down 2, 12 taps", (12,), {"down": 2, "padding": 5}),
        ("up 4, 24 taps", (24,), {"up": 4, "padding": 12, "gain": 16.0}),
        ("down 4, 24 taps", (24,), {"down": 4, "padding": 11}),
        ("down 2, 12x12", (12, 12), {"down": 2, "padding": 5}),
        ("up 3x2, down 2x5, 3x7", (3, 7), {"up": [3, 2], "down": [2, 5], "padding": [4, -1, 2, 3]}),
    ]
    cases += [Case("upfirdn2d", name, {"x": image}, {"f": f}, options) for name, f, options in resampling]
    chains: list[tuple[tuple[int, ...], tuple[int, ...], int, int]] = [
        ((12,), (12,), 2, 2),
        ((24,), (12,), 4, 2),
        ((12,), (24,), 2, 4),
        ((24,), (24,), 4, 4),
        ((12,), (12, 12), 2, 2),
        ((24,), (12, 12), 4, 2),
        ((5, 3), (7,), 3, 5),
    ]
    for fu, fd, up, down in chains:
        padding = 18 if 4 in (up, down) else 17  # as layers of StyleGAN3 have it, where their samples lie
        options = {"up": up, "down": down, "padding": [padding, padding - 1] * 2, "clamp": 2.0}
        name = f"up {up}, {'x'.join(map(str, fu))}; down {down}, {'x'.join(map(str, fd))}"
        cases.append(Case("filtered_lrelu", name, {"x": image, "b": bias}, {"fu": fu, "fd": fd}, options))
    convolution: dict[str, tuple[int, ...]] = {"x": image, "styles": (2, 3), "bias": (4,)}
    # Smooth activations: on which side of a kink a convolution is, its rounding to 16 bits may decide.
    layers: list[tuple[str, int, tuple[int, ...] | None, dict[str, Any]]] = [
        ("3x3, noise", 3, (2, 1, 35, 37), {"padding": 1, "act": "swish"}),
        ("1x1", 1, None, {"demodulate": False}),
        ("3x3, up 2", 3, None, {"padding": 1, "up": 2}),
        ("3x3, rms", 3, None, {"padding": 2, "prenormalize": "rms"}),
    ]
    for name, kernel, noise, options in layers:
        shapes = {**convolution, "weight": (4, 3, kernel, kernel), **({"noise": noise} if noise else {})}
        filters: dict[str, tuple[int, ...]] = {"resample_filter": (4, 4)} if "up" in options else {}
        options = {"prenormalize": "max", **options}
        cases.append(Case("modulated_conv2d", name, shapes, filters, options))
        cases.append(Case("modulated_conv2d", f"{name}, our kernel", shapes, filters, options, by_kernel=True))
    return cases


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "check", help="run every operator here and compare with the reference", description=DESCRIPTION
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="where to run (default: cuda where it is available)")
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose operator and name contain this")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import torch

    from .. import backends

    states = backends()
    device = args.device or ("cuda" if states["cuda"] == "available" else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise CommandError(f"argument --device: {states['cuda']}", BAD_ARGUMENT)
    cases = [case for case in _cases() if args.only in f"{case.op} {case.name}"]
    if not cases:
        raise CommandError(f"argument --only: no case is called {args.only!r}", BAD_ARGUMENT)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    state = states[device]
    print(f"on {where}, by {'compiled kernels' if state == 'available' else f'plain PyTorch: {state}'}")
    print("greatest error of the result / of the gradients\n")
    print(f"{'':40}" + "".join(f"{name:>18}" for name in TOLERANCE))
    failures = 0
    for case in cases:
        cells, reasons = [], []
        for dtype, tolerance in TOLERANCE.items():
            try:
                value, gradient = errors(case, getattr(torch, dtype), device)
            except RuntimeError as error:
                cells.append("failed")
                reasons.append(f"{dtype}: {str(error).splitlines()[0]}")
                continue
            cells.append(f"{value:.1e} / {gradient:.1e}")
            # Written so that NaN fails.
            if not (value <= tolerance and gradient <= GRADIENT_FACTOR * tolerance):
                reasons.append(f"{dtype}: more than {tolerance:.0e} / {GRADIENT_FACTOR * tolerance:.0e}")
        failures += bool(reasons)
        verdict = f"FAIL ({'; '.join(reasons)})" if reasons else "OK"
        print(f"{case.op + ' ' + case.name:40}" + "".join(f"{cell:>18}" for cell in cells) + f"  {verdict}")
    print(f"\n{len(cases) - failures} of {len(cases)} cases agree with the reference")
    return FAILED if failures else 0


def errors(case: Case, dtype: torch.dtype, device: str) -> tuple[float, float]:
    """The greatest relative error of the result and of the gradients, over both memory formats."""
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in case.shapes.items()
    }
    exact = {name: value.double() for name, value in inputs.items()}
    expected = results(case, exact, dtype, "cpu", "reference")
    worst = [0.0, 0.0]
    for memory_format in (torch.contiguous_format, torch.channels_last):
        inputs["x"] = inputs["x"].contiguous(memory_format=memory_format)
        actual = results(case, inputs, dtype, device, "auto")
        found = [relative_error(a, e) for a, e in zip(actual, expected, strict=True)]
        worst = [_larger(worst[0], found[0]), _larger(worst[1], *found[1:])]
    return worst[0], worst[1]


def results(case: Case, inputs: dict[str, Tensor], dtype: torch.dtype, device: str, backend_name: str) -> list[Tensor]:
    """The result, and its gradients weighted by fixed noise of the dtype."""
    import torch

    import ganops
    from ganops import _cost_model

    tensors = {name: value.detach().to(device).requires_grad_() for name, value in inputs.items()}
    filters = {name: _filter(size).to(device) for name, size in case.filters.items()}
    with ganops.backend(backend_name), _cost_model.forced(case.by_kernel):
        y: Tensor = getattr(ganops, case.op)(**tensors, **filters, **case.options)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        return [y.detach(), *torch.autograd.grad(y, list(tensors.values()), weight.to(y))]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    scale = expected.square().mean().sqrt()
    return float((actual.cpu().double() - expected).abs().max() / scale)


def _larger(*values: float) -> float:
    """The greatest, or NaN where one is NaN."""
    return next((value for value in values if value != value), max(values))


def _filter(size: tuple[int, ...]) -> Tensor:
    """Taps without symmetry, so that a wrong flip shows, of unit sum."""
    import torch

    taps = torch.rand(size, generator=torch.Generator().manual_seed(sum(size))) + 0.1
    return taps / taps.sum()
