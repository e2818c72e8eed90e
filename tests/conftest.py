import os
import zlib
from collections.abc import Generator, Iterator

# oneDNN trusts a processor's AMX flag even where a virtual machine does not let AMX run; set before torch is imported.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")

import hypothesis
import pytest
import torch
from simt_ops import emulated_ops

import ganops

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40, print_blob=True)
hypothesis.settings.register_profile("local", deadline=None, max_examples=100)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(1)
# Every uninitialised output is filled with NaN, so that an element no kernel wrote shows.
torch.use_deterministic_algorithms(True)
torch.utils.deterministic.fill_uninitialized_memory = True

AVAILABLE = [name for name, state in ganops.backends().items() if state == "available"]
# The CUDA kernels on the emulator, which checks every access. Tests marked "emulated" run on it, one schedule each.
SIMT = "simt"
ORDERS = ("forward", "reverse", "random")


def pytest_report_header() -> list[str]:
    return [f"ganops backend {name}: {state}" for name, state in ganops.backends().items()]


def runs_on_simt(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and hasattr(item, "callspec") and item.callspec.params.get("impl") == SIMT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not runs_on_simt(item) or item.get_closest_marker("emulated")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    if not runs_on_simt(item):
        return (yield)
    emulator = emulated_ops(SIMT)
    seed = zlib.crc32(item.name.encode())
    emulator.configure(ORDERS[seed % len(ORDERS)], seed)
    emulator.clear()
    result = yield
    assert [str(diagnostic) for diagnostic in emulator.diagnostics()] == []
    return result


@pytest.fixture(autouse=True)
def seed() -> None:
    """Initial weights and latents are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="module", params=[*AVAILABLE, SIMT])
def impl(request: pytest.FixtureRequest) -> str:
    """The name of an implementation that this machine has."""
    if request.param == SIMT:
        emulated_ops(SIMT)
    return request.param


@pytest.fixture
def forced(impl: str) -> Iterator[str]:
    """The same, in force during the test."""
    with ganops.backend(impl):
        yield impl


@pytest.fixture(scope="module")
def device(impl: str) -> str:
    return "cuda" if impl == "cuda" else "cpu"
