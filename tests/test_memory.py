"""Large outputs of the CPU kernels come in huge pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
