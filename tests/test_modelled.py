"""Modelled GPU times: the arithmetic by hand, and counts that are today's kernels'."""

from __future__ import annotations

import nvcc
import pytest
from cases import BLUR
from modelled_counts import calls, count, mix, with_few_channels

from ganops.__main__ import main
from ganops.bench.calls import Call
from ganops.bench.gpus import GPUS, Gpu
from ganops.bench.modelled import bound, counted, key, passes

# One multiprocessor at 1 kHz, whose figures are easy to divide by.
SLOW = Gpu("slow", "sm_80", 1, 64, 2 * 64 * 1e3, 1e6, 1e3, "invented")
LAYER = Call("upfirdn2d", "layer", {"x": (1, 4, 8, 8)}, {"f": BLUR, "padding": [2, 1, 2, 1]})


def counts(**launch: float) -> dict[str, object]:
    entry = {"op": "upfirdn2d", "kind": LAYER.kind, "side": 8, "outputs": 128}  # of two planes
    launches = [{"kernel": "k", "bytes": 0, "wavefronts": 0, "mma_macs": 0, **launch}]
    return {
        "kernels": {"k": {"sm_80": {"arithmetic": 0.25, "mma": 0.125}}},
        "layers": {"a": {**entry, "launches": launches}},
    }


@pytest.mark.parametrize(
    ("launch", "by", "microseconds"),
    [
        ({"bytes": 300}, "memory", 2 * 300 / 1e3 * 1e6),
        ({"wavefronts": 500}, "shared", 2 * 500 / 1e3 * 1e6),
        ({"mma_macs": 50_000}, "tensor", 2 * 2 * 50_000 / 1e6 * 1e6),
        ({}, "FMA", 4 * 64 * 32 / (2 * 64 * 1e3) * 1e6),
    ],
)
def test_the_bound_is_the_slowest_part(launch: dict[str, float], by: str, microseconds: float) -> None:
    found = bound(LAYER, SLOW, counts(**launch))
    assert found.by == by and found.microseconds == pytest.approx(microseconds) and found.kernel == "k"
    # Either 4096 multiply-adds of 32 lanes are a quarter of the instructions, or the tensor cores' products, of 2048
    # multiply-adds each, an eighth. Four are issued in a cycle.
    mix = 2 * 50_000 / 2048 / 0.125 if by == "tensor" else 4096 / 32 / 0.25
    assert found.mix == pytest.approx(mix / 4e3 * 1e6)


def test_other_sizes_are_scaled_by_their_outputs() -> None:
    large = Call("upfirdn2d", "layer", {"x": (1, 1, 32, 32)}, LAYER.options)
    assert bound(large, SLOW, counts(bytes=300)).microseconds == pytest.approx(8 * 300 / 1e3 * 1e6)


def test_a_layer_that_was_not_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="was not counted"):
        bound(Call("upfirdn2d", "layer", {"x": (1, 1, 8, 8)}, {"f": BLUR, "down": 2}), SLOW, counts())


def test_passes_of_the_unfused_way() -> None:
    """Bytes of two an element; 8 x 8 becomes 4 x 4, or 16 x 16."""
    assert [moved for moved, _ in passes(Call("bias_act", "", {"x": (1, 1, 8, 8)}))] == [256] * 4
    down = Call("upfirdn2d", "", {"x": (1, 1, 8, 8)}, {"f": BLUR, "down": 2, "padding": 1})
    assert [moved for moved, _ in passes(down)] == [256, 256, 64]
    up = Call("upfirdn2d", "", {"x": (1, 1, 8, 8)}, {"f": BLUR, "up": 2, "padding": [2, 1, 2, 1]})
    assert [moved for moved, _ in passes(up)] == [640, 1024, 1024]
    assert sum(flops for _, flops in passes(up)) == 2 * 16 * 256  # with the zeros


def test_data_sheets_agree_with_themselves() -> None:
    """Boost clocks, which the same sheets name."""
    clocks = {name: gpu.clock / 1e9 for name, gpu in GPUS.items()}
    assert clocks == pytest.approx({"a100": 1.41, "h100": 1.98, "rtx4090": 2.52}, abs=0.01)


def test_every_layer_is_counted() -> None:
    content = counted()
    assert content["layers"].keys() == calls().keys()
    launched = {launch["kernel"] for entry in content["layers"].values() for launch in entry["launches"]}
    assert launched == content["kernels"].keys()


CURRENT = [
    "bias_act (lrelu) 64x64",
    "upfirdn2d (4x4 taps) 65x65",
    "upfirdn2d (up 2, 4x4 taps) 32x32",
    "filtered_lrelu (up 2, down 2, 12 and 12 taps) 38x38",
    "filtered_lrelu (up 4, down 2, 24 and 12 taps) 38x38",
    "filtered_lrelu (up 2, down 2, 12 and 12x12 taps) 36x36",
    "filtered_lrelu (up 4, down 2, 24 and 12x12 taps) 36x36",
]


@pytest.mark.parametrize("name", CURRENT)
def test_counts_are_those_of_today_s_kernels(name: str) -> None:
    call = calls()[name]
    assert key(call) == name
    assert count(with_few_channels(call)) == counted()["layers"][name], "python tests/modelled_counts.py --record"


@pytest.mark.skipif(nvcc.missing() is not None, reason=str(nvcc.missing()))
def test_the_mix_is_that_of_today_s_machine_code() -> None:
    known = counted()["kernels"]
    today = mix(set(known))
    assert today.keys() == known.keys()
    for name, of in today.items():
        for architecture, shares in of.items():
            assert shares == pytest.approx(known[name][architecture], rel=0.05), f"{name}: modelled_counts.py --record"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "h100,a100,rtx4090", "--filter", "sg3r-256"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("MODELLED, not measured") and "sg3r-256, all of these, modelled" in text
    assert text.count("\nh100: ") == text.count("\na100: ") == text.count("\nrtx4090: ") == 1
    assert main(["bench", "--model", "v100"]) == 2
    assert "--model must be of a100, h100, rtx4090, got 'v100'" in capsys.readouterr().err
