"""Times modulated_conv2d against the two ways of computing it in plain PyTorch, with noise, bias, leaky ReLU and clamp.

"grouped" builds each sample's weights and convolves with as many groups as samples; "scaled" scales the input,
convolves with the weights that samples share, and scales the result. All run in turn in one process, so that a busy
machine slows them alike. A ratio is the median of those within each turn.

python benchmarks/modulated_conv2d.py --threads 2
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import ganops

LAYERS = {  # name: (N, I, O, size, taps, up)
    "3x3-64": (1, 512, 512, 64, 3, 1),
    "3x3-128-batch-4": (4, 256, 256, 128, 3, 1),
    "3x3-256": (1, 128, 128, 256, 3, 1),
    "up2-64": (1, 512, 512, 64, 3, 2),
    "up2-32-batch-4": (4, 512, 512, 32, 3, 2),
    "1x1-256": (1, 128, 3, 256, 1, 1),
    "1x1-256-wide": (1, 128, 128, 256, 1, 1),
}
SQRT2, SLOPE, CLAMP, EPSILON = 2**0.5, 0.2, 256.0, 1e-8
Layer = Callable[..., Tensor]
Clock = Callable[[], float]


def convolve(x: Tensor, weight: Tensor, up: int, groups: int = 1) -> Tensor:
    """weight is [groups * O, I, k, k]. The upsampling one is transposed; its filter follows, one channel at a time."""
    taps = weight.shape[-1]
    if up == 1:
        return F.conv2d(x, weight, padding=taps // 2, groups=groups)
    transposed = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    y = F.conv_transpose2d(x, transposed, stride=up, groups=groups)
    fir = torch.tensor([1.0, 3.0, 3.0, 1.0]).div(8).mul(up).to(y.dtype)
    filters = fir.outer(fir).expand(y.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(y, [1, 1, 1, 1]), filters, groups=y.shape[1])


def activate(y: Tensor, bias: Tensor) -> Tensor:
    return F.leaky_relu(y + bias[:, None, None], SLOPE).mul(SQRT2).clamp(-CLAMP, CLAMP)


def grouped(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor, up: int) -> Tensor:
    n = x.shape[0]
    w = weight[None] * styles[:, None, :, None, None]
    w = w * (w.square().sum([2, 3, 4], keepdim=True) + EPSILON).rsqrt()
    y = convolve(x.reshape(1, -1, *x.shape[2:]), w.flatten(0, 1), up, groups=n)
    return activate(y.reshape(n, -1, *y.shape[2:]) + noise, bias)


def scaled(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor, up: int) -> Tensor:
    d = (styles.square() @ weight.square().sum([2, 3]).t() + EPSILON).rsqrt()
    y = convolve(x * styles[:, :, None, None], weight, up)
    return activate(torch.addcmul(noise, y, d[:, :, None, None]), bias)


def fused(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor, up: int) -> Tensor:
    options: dict[str, Any] = {"padding": weight.shape[-1] // 2, "act": "lrelu", "clamp": CLAMP}
    if up > 1:
        options |= {"up": up, "resample_filter": ganops.setup_filter([1, 3, 3, 1]), "flip_weight": False}
    return ganops.modulated_conv2d(x, weight, styles, noise=noise, bias=bias, **options)


def seconds(layer: Layer, tensors: list[Tensor], up: int, backward: bool, clock: Clock) -> float:
    begin = clock()
    with torch.set_grad_enabled(backward):
        y = layer(*tensors, up)
    if backward:
        torch.autograd.grad(y, tensors, y)
    return clock() - begin


def measure(name: str, dtype: torch.dtype, backward: bool, repeat: int, clock: Clock) -> str:
    """The line of one layer."""
    n, i, o, size, taps, up = LAYERS[name]
    shapes = [(n, i, size, size), (o, i, taps, taps), (n, i), (size * up, size * up), (o,)]
    tensors = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    ways: list[Layer] = [fused, grouped, scaled]
    with torch.no_grad():
        results = [way(*tensors, up) for way in ways]
    if dtype == torch.float32:
        for other in results[1:]:
            torch.testing.assert_close(results[0], other, rtol=1e-3, atol=1e-3)
    turns = [[seconds(way, tensors, up, backward, clock) for way in ways] for _ in range(repeat)]
    ours = statistics.median(turn[0] for turn in turns)
    flops = 2 * n * o * i * taps**2 * size**2 * (3 if backward else 1)
    ratios = [statistics.median(turn[k] / turn[0] for turn in turns) for k in (1, 2)]
    kind = "forward+backward" if backward else "forward"
    return f"{name:16} {kind:16} {ours * 1e3:9.1f} {flops / ours / 1e9:8.1f} {ratios[0]:9.2f} {ratios[1]:9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", choices=[*LAYERS, []], help="default: all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--backward", action="store_true", help="time the gradients of all inputs, too")
    parser.add_argument(
        "--processor-time", action="store_true", help="for a busy machine; page faults count, waiting not"
    )
    args = parser.parse_args()
    clock = time.process_time if args.processor_time else time.perf_counter
    torch.set_num_threads(args.threads)
    kind = "processor time" if args.processor_time else "time"
    print(
        f"torch {torch.__version__}, {args.dtype}, threads: {args.threads}, {kind}, medians of {args.repeat}, in turn"
    )
    print(f"{'layer':16} {'pass':16} {'ours ms':>9} {'GFLOP/s':>8} {'x grouped':>9} {'x scaled':>9}")
    for name in args.layers or LAYERS:
        print(measure(name, getattr(torch, args.dtype), args.backward, args.repeat, clock), flush=True)


if __name__ == "__main__":
    main()
