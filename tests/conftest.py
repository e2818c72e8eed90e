import os
from collections.abc import Iterator

# oneDNN trusts a processor's AMX flag even where a virtual machine does not let AMX run; set before torch is imported.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")

import hypothesis
import pytest
import torch

import ganops

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40, print_blob=True)
hypothesis.settings.register_profile("local", deadline=None, max_examples=100)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(1)
# Every uninitialised output is filled with NaN, so that an element no kernel wrote shows.
torch.use_deterministic_algorithms(True)
torch.utils.deterministic.fill_uninitialized_memory = True

AVAILABLE = [name for name, state in ganops.backends().items() if state == "available"]


def pytest_report_header() -> list[str]:
    return [f"ganops backend {name}: {state}" for name, state in ganops.backends().items()]


@pytest.fixture(scope="module", params=AVAILABLE)
def impl(request: pytest.FixtureRequest) -> str:
    """The name of an implementation that this machine has."""
    return request.param


@pytest.fixture
def forced(impl: str) -> Iterator[str]:
    """The same, in force during the test."""
    with ganops.backend(impl):
        yield impl


@pytest.fixture(scope="module")
def device(impl: str) -> str:
    return "cuda" if impl == "cuda" else "cpu"
