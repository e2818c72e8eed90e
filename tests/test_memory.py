"""Memory of the CPU kernels: large outputs come in huge pages, and no call loses any."""

import ctypes
import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_raw_calls import CALLS, KERNEL, X

import ganops

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# A process of its own: the tests' own torch fills new memory with NaN before a kernel sees it.
COUNT = """
import resource, torch, ganops
x = torch.ones(1, 64, 512, 512)
f = ganops.setup_filter([1, 3, 3, 1])
calls = {
    "bias_act": lambda: ganops.bias_act(x, act="lrelu"),
    "upfirdn2d": lambda: ganops.filter2d(x, f),
    "filtered_lrelu": lambda: ganops.filtered_lrelu(x),
}
for name, call in calls.items():
    call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    print(name, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
@pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="this kernel gives no transparent huge pages"
)
def test_a_large_output_costs_few_page_faults() -> None:
    output = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True).stdout
    faults = {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", output)}
    pages = 64 * 512 * 512 * 4 // 4096
    assert len(faults) == 3
    assert max(faults.values()) < pages / 4, faults


class Mallinfo2(ctypes.Structure):
    """glibc's struct of this name."""

    _fields_ = [
        *[(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")],
        *[(name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")],
    ]


def bytes_in_use() -> int:
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    usage = mallinfo2()
    return int(usage.uordblks + usage.hblkhd)


CONVOLUTION = {"x": X, "weight": KERNEL, "scale": None, "out_scale": None, "pad_y": 1, "pad_x": 1}
CONVOLUTIONS = {
    "winograd_conv2d": CONVOLUTION,
    "gemm_conv2d": {**CONVOLUTION, "flips": False, "splits": False},
    "filter_energy": {"weight": KERNEL},
}


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33 or newer to count")
@pytest.mark.parametrize("operator", [*CALLS, *CONVOLUTIONS])
def test_a_call_loses_no_memory(operator: str) -> None:
    """A few bytes are many calls later many megabytes: malloc cannot join what is free on either side of them."""
    function, arguments = getattr(torch.ops.ganops, operator), {**CALLS, **CONVOLUTIONS}[operator]
    calls, smallest_piece = 300, 24
    for _ in range(calls):
        function(**arguments)
    before = bytes_in_use()
    for _ in range(calls):
        function(**arguments)
    assert bytes_in_use() - before < calls * smallest_piece
