"""Times the operators on layers of the StyleGAN networks: the compiled kernels against plain PyTorch (the reference).

Both run in turn in one process, so that a busy machine slows them alike; each figure is a median. GB/s counts every
input and output once (twice with the backward pass, which reads and writes as many again).

python benchmarks/ops.py                        all cases
python benchmarks/ops.py upfirdn2d bias_act-64  those whose names contain one of these words
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tqdm
from torch import Tensor

import ganops

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from cases import NETWORK, Case

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
NATIVE = "cpu"
COLUMNS = "{:34} {:>18} {:8} {:16} {:>9} {:>9} {:>7} {:>8} {:>6}"


def forward(case: Case, tensors: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return case.run(tensors)


def forward_backward(case: Case, tensors: dict[str, Tensor]) -> Tensor:
    y = case.run(tensors)
    torch.autograd.grad(y, list(tensors.values()), y.detach())
    return y


def milliseconds(
    function: Callable[[Case, dict[str, Tensor]], Tensor], case: Case, tensors: dict[str, Tensor]
) -> float:
    begin = time.perf_counter()
    function(case, tensors)
    return (time.perf_counter() - begin) * 1e3


def measure(case: Case, dtype: torch.dtype, backward: bool, repeat: int) -> str:
    """The line of one case."""
    function = forward_backward if backward else forward
    tensors = case.tensors(dtype)
    times: dict[str, list[float]] = {"reference": [], NATIVE: []}
    for name in times:
        with ganops.backend(name):
            y = function(case, tensors)  # warms up
    for _ in tqdm.trange(repeat, desc=str(case), leave=False, disable=None):
        for name, measured in times.items():
            with ganops.backend(name):
                measured.append(milliseconds(function, case, tensors))
    reference, native = (statistics.median(measured) for measured in times.values())
    size = sum(t.numel() for t in [*tensors.values(), y]) * y.element_size() * (1 + backward)
    return COLUMNS.format(
        f"{case.op} {case.name}",
        str(list(case.shapes["x"])).replace(" ", ""),
        str(dtype).removeprefix("torch."),
        "forward+backward" if backward else "forward",
        f"{reference:.2f}",
        f"{native:.2f}",
        f"{size / native / 1e6:.1f}",
        "" if backward else f"{case.flops / native / 1e6:.1f}",
        f"{reference / native:.2f}",
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown processor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only cases whose names contain one of these")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each, of which the median counts (default 7)")
    parser.add_argument("--backward", action="store_true", help="time the gradients of all inputs, too")
    args = parser.parse_args()
    cases = [case for case in NETWORK if not args.words or any(word in str(case) for word in args.words)]
    if not cases:
        parser.error(f"no case is named so; there are: {', '.join(map(str, NETWORK))}")
    if args.repeat < 1 or args.threads < 1:
        parser.error("--repeat and --threads must be at least 1")
    if ganops.backends()[NATIVE] != "available":
        parser.error(ganops.backends()[NATIVE])
    torch.set_num_threads(args.threads)
    isa = torch.ops.ganops.cpu_instruction_set()
    print(
        f"torch {torch.__version__}, {processor()}, {isa}, threads: {args.threads}, medians of {args.repeat}, in turn"
    )
    print(COLUMNS.format("case", "x", "dtype", "pass", "ref. ms", "ganops ms", "GB/s", "GFLOP/s", "x ref."))
    for case in cases:
        print(measure(case, DTYPES[args.dtype], args.backward, args.repeat), flush=True)


if __name__ == "__main__":
    main()
