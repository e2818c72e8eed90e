"""Which way a GPU takes through modulated_conv2d: the model, by hand; what was measured; a CPU asks neither."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import ganops
from ganops import _cost_model, _tuning
from ganops.__main__ import main
from ganops._cost_model import Convolution, Gpu, kernel_seconds, kernel_wins, torch_seconds
from ganops.cli import BAD_ARGUMENT

A100 = Gpu("A100", 80, 108, 1.41e9, 1.555e12)
LAYER = Convolution(1, 128, 256, 256, 128, 3, 3, 1, 1, element_bytes=2, channels_last=False)
DEEP = Convolution(1, 512, 16, 16, 512, 3, 3, 1, 1, element_bytes=2, channels_last=True)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No table of the machine that tests run on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _tuning._tables.cache_clear()
    yield tmp_path
    _tuning._tables.cache_clear()


def test_peaks_are_those_of_the_data_sheet() -> None:
    assert A100.tensor_rate() * 2 == pytest.approx(312e12, rel=0.01)
    assert A100.float_rate() * 2 == pytest.approx(19.5e12, rel=0.01)


def test_a_gpu_newer_than_the_table_is_taken_for_its_newest() -> None:
    assert (
        dataclasses.replace(A100, capability=139).tensor_rate()
        == dataclasses.replace(A100, capability=121).tensor_rate()
    )


def test_times_by_hand() -> None:
    # 512 blocks on 108 multiprocessors are 5 rounds, each of 128 pixels, 128 channels, 9 taps and 128 channels.
    compute = 5 * 128 * 128 * 9 * 128 / (1024 * 1.41e9) / _cost_model.KERNEL_SHARE
    launches = _cost_model.KERNEL_LAUNCHES * _cost_model.LAUNCH_SECONDS
    assert kernel_seconds(LAYER, A100) == pytest.approx(compute + launches)
    # torch: 9.7e9 multiply-adds; x and y, 16 MiB each, read and written once more, and again for channels_last.
    macs, image = 256 * 256 * 128 * 128 * 9, 128 * 256 * 256 * 2
    passes = 2 * 4 * image / (1.555e12 * _cost_model.BANDWIDTH_SHARE)
    launches = _cost_model.TORCH_LAUNCHES * _cost_model.LAUNCH_SECONDS
    expected = macs / A100.tensor_rate() / _cost_model.TORCH_SHARE + passes + launches
    assert torch_seconds(LAYER, A100, True) == pytest.approx(expected)


def test_inserted_zeros_cost_nothing() -> None:
    up = dataclasses.replace(LAYER, height=128, width=128, up=2)
    assert up.out_pixels() == LAYER.out_pixels() and up.taps() == LAYER.taps() / 4
    assert torch_seconds(up, A100, True) < torch_seconds(LAYER, A100, True)


def test_layers_bound_by_memory_go_to_the_kernel_and_few_blocks_do_not() -> None:
    assert kernel_wins(LAYER, A100, True)
    assert not kernel_wins(DEEP, A100, True)
    to_rgb = dataclasses.replace(LAYER, out_channels=3, kernel_height=1, kernel_width=1)
    assert kernel_wins(to_rgb, A100, True)


def test_float32_depends_on_the_users_switch() -> None:
    single = dataclasses.replace(LAYER, element_bytes=4)
    assert not kernel_wins(single, A100, allow_tf32=True)
    to_rgb = dataclasses.replace(single, out_channels=3, kernel_height=1, kernel_width=1)
    assert kernel_wins(to_rgb, A100, allow_tf32=False)


def test_float64_and_large_weights_are_torchs() -> None:
    assert not kernel_wins(dataclasses.replace(LAYER, element_bytes=8), A100, True)
    assert not kernel_wins(dataclasses.replace(LAYER, kernel_width=9), A100, True)


def test_a_cpu_is_never_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cost_model, "gpu_of", lambda device: pytest.fail("asked for a GPU"))
    monkeypatch.setattr(_tuning, "path", lambda: pytest.fail("read the cache"))
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 1, 1)
    assert not _cost_model.prefers_kernel(x, weight, 1, 1)
    with _cost_model.forced(True):
        assert _cost_model.prefers_kernel(x, weight, 1, 1)
        with _cost_model.forced(False):
            assert not _cost_model.prefers_kernel(x, weight, 1, 1)
    assert ganops.modulated_conv2d(x, weight, torch.ones(1, 2)).shape == (1, 3, 4, 4)


def test_properties_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    known = SimpleNamespace(
        name="any", major=8, minor=6, multi_processor_count=84, clock_rate=1_800_000, memory_clock_rate=8_000_000,
        memory_bus_width=384,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: known)
    _cost_model.gpu_of.cache_clear()
    assert _cost_model.gpu_of(torch.device("cuda", 7)) == Gpu("any", 86, 84, 1.8e9, 768e9)
    _cost_model.gpu_of.cache_clear()


def test_a_compiled_function_keeps_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cost_model, "gpu_of", lambda device: A100)
    monkeypatch.setattr(_cost_model, "_is_compiled", lambda: True)

    def chosen(x: Tensor, size: int) -> Tensor:
        numbers = (1, 128, size, size, 128, 3, 3, 1, 1, 2, False)
        return x + 1 if _cost_model._wins_on(torch.device("cuda", 0), True, *numbers) else x - 1

    compiled = torch.compile(chosen, backend="eager", fullgraph=True, dynamic=False)
    assert compiled(torch.zeros(()), 256) == 1 and compiled(torch.zeros(()), 8) == -1


def test_shapes_of_tensors() -> None:
    x, weight = torch.zeros(2, 3, 4, 5, dtype=torch.half), torch.zeros(6, 3, 1, 3)
    expected = Convolution(2, 3, 4, 5, 6, 1, 3, 2, 1, element_bytes=2, channels_last=False)
    assert _cost_model.shapes_of(x, weight, 2, 1) == expected
    last = x.contiguous(memory_format=torch.channels_last)
    assert _cost_model.shapes_of(last, weight, 2, 1) == dataclasses.replace(expected, channels_last=True)


def test_what_was_measured_decides(empty_cache: Path) -> None:
    kind = LAYER.kind()
    assert kind == "16-bit 3x3" and _tuning.correction("A100", kind) == 1.0
    where = _tuning.save("A100", {kind: 100.0})
    assert where == empty_cache / "ganops" / "tuning.json"
    assert _tuning.correction("A100", kind) == 100.0 and not kernel_wins(LAYER, A100, True)
    assert kernel_wins(LAYER, dataclasses.replace(A100, name="another"), True)
    _tuning.save("another", {kind: 2.0})
    assert _tuning.correction("A100", kind) == 100.0 and _tuning.correction("another", kind) == 2.0


def test_another_version_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    _tuning.save("A100", {"16-bit 3x3": 3.0})
    monkeypatch.setattr(ganops, "__version__", "99")
    assert _tuning.correction("A100", "16-bit 3x3") == 1.0


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": 1}', '{"a": {"b": "fast"}}', '{"a": {"b": -1}}', '{"a": {"b": NaN}}']
)
def test_a_broken_table_is_told_of_and_ignored(text: str, empty_cache: Path) -> None:
    _tuning.path().parent.mkdir(parents=True)
    _tuning.path().write_text(text)
    with pytest.warns(RuntimeWarning, match="tuning.json is ignored"):
        assert _tuning.correction("A100", "16-bit 3x3") == 1.0
    _tuning.save("A100", {"16-bit 3x3": 2.0})
    assert _tuning.correction("A100", "16-bit 3x3") == 2.0


def test_a_relative_cache_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert _tuning.path() == Path.home() / ".cache" / "ganops" / "tuning.json"


def test_tune_keeps_how_far_the_model_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cost_model, "gpu_of", lambda device: A100)
    monkeypatch.setattr(_tuning, "LAYERS", ((4, 4, 8, 3), (4, 6, 8, 3), (4, 3, 8, 1)))
    taken: list[bool | None] = []

    def seconds(call: object) -> float:
        assert isinstance(call(), Tensor)  # type: ignore[operator]
        taken.append(_cost_model._forced_choice())
        return 3.0 if taken[-1] else 1.0

    table, where = _tuning.tune(torch.device("cpu"), seconds)
    assert taken == [True, False] * 6
    assert set(table) == {"16-bit 3x3", "16-bit 1x1", "32-bit 3x3", "32-bit 1x1"}
    shapes = [dataclasses.replace(LAYER, height=8, width=8, in_channels=4, out_channels=o) for o in (4, 6)]
    modelled = [kernel_seconds(s, A100) / torch_seconds(s, A100, True) for s in shapes]
    assert table["16-bit 3x3"] == pytest.approx(3 / (modelled[0] * modelled[1]) ** 0.5)
    assert _tuning.correction("A100", "16-bit 3x3") == table["16-bit 3x3"] and where.exists()


def test_bench_tunes_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class Clock:
        def prepare(self, function: object) -> object:
            return iter((5.0, 2000.0, 1.0e6)).__next__

    def tune(device: torch.device, seconds: object) -> tuple[dict[str, float], Path]:
        assert device == torch.device("cuda", 3)
        return {"16-bit 3x3": seconds(lambda: None)}, tmp_path  # type: ignore[operator]

    monkeypatch.setattr("ganops._backend.why_not", lambda *_: None)
    monkeypatch.setattr("ganops.bench.clock.CudaClock", Clock)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(_tuning, "tune", tune)
    assert main(["bench", "--tune", "--repeat", "3"]) == 0
    assert f"16-bit 3x3          2.00\nkept in {tmp_path}\n" in capsys.readouterr().out


def test_bench_without_a_gpu_tunes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ganops._backend.why_not", lambda *_: "torch sees no GPU")
    assert main(["bench", "--tune"]) == BAD_ARGUMENT
    assert "argument --tune: torch sees no GPU" in capsys.readouterr().err
    assert not _tuning.path().exists()
