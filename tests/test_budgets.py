"""No kernel costs more than what is recorded in budgets.json, as nvcc and the emulator see it."""

from __future__ import annotations

import nvcc
import pytest
from budgets import CALLS, GPUS, LIMITS, Gpu, count, key, occupancy, recorded
from convolution_traffic import A100, GREATEST_ON_A100, LAYERS, T4, Layer, moved

ROUNDING = 0.001  # of the recorded figures
QUICK_MACS = 0.5e9

needs_nvcc = pytest.mark.skipif(nvcc.missing() is not None, reason=str(nvcc.missing()))


@needs_nvcc
def test_compiled_kernels_keep_to_their_budgets() -> None:
    known, worse, found = recorded()["compiled"], [], set()
    for instance in nvcc.instances():
        name = key(instance)
        found.add(name)
        budget = known.get(name, {}).get(instance.architecture)
        if budget is None:
            worse.append(f"{name} on {instance.architecture} has no budget")
            continue
        figures = {"registers": instance.registers, "stack": instance.stack, "spills": instance.spills}
        worse += [
            f"{name} on {instance.architecture}: {what} {value}, recorded {budget[what]}"
            for what, value in figures.items()
            if value > budget[what]
        ]
        if budget["wide_loads"] and not instance.has_wide_loads:
            worse.append(f"{name} on {instance.architecture} lost its 16-byte loads")
    worse += [f"{name} is recorded but no more" for name in known.keys() - found]
    assert not worse, "\n".join(worse) + "\npython tests/budgets.py --record makes today's figures the recorded ones"


def test_recorded_kernels_have_no_stack_and_no_spills() -> None:
    bad = {
        (name, architecture)
        for name, architectures in recorded()["compiled"].items()
        for architecture, figures in architectures.items()
        if figures["stack"] or figures["spills"]
    }
    assert not bad


def test_16_bit_kernels_for_aligned_data_load_16_bytes_at_a_time() -> None:
    """Kernels for the networks' aligned 16-bit tensors; the generic one, for all other filters, goes by elements, and
    weights to be packed are float32.
    """
    known, others = recorded()["compiled"], {"generic_kernel<half_t>", "pack_weights_kernel<half_t>"}
    for name in {counted.split(": ", 1)[1] for counted in recorded()["counted"]} - others:
        matching = [figures for full, figures in known.items() if full.endswith(f": {name}")]
        assert matching, name
        for figures in matching:
            assert all(of["wide_loads"] for of in figures.values()), name


@pytest.mark.parametrize("call", CALLS)
def test_counted_figures_keep_to_their_budgets(call: str) -> None:
    """Of what is recorded, and of what a launch may cost at all."""
    known, worse = recorded()["counted"], []
    for number, counted in enumerate(count(call)):
        name = f"{call} #{number}: {counted.kernel}"
        assert name in known, f"{name} has no budget: python tests/budgets.py --record"
        assert not counted.launch.diagnostics
        for what, budget in known[name].items():
            value = getattr(counted, what)
            if value > budget + ROUNDING:
                worse.append(f"{name}: {what} {value:.3f}, recorded {budget:.3f}")
            if value > LIMITS[what]:
                worse.append(
                    f"{name}: {what} {value:.3f}, at most {LIMITS[what]:.2f}: {'; '.join(map(str, counted.traffic))}"
                )
    assert not worse, "\n".join(worse)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(layer, marks=[pytest.mark.slow] if layer.macs > QUICK_MACS else [], id=str(layer))
        for layer in LAYERS
    ],
)
def test_convolutions_move_x_weight_and_y_about_once(layer: Layer) -> None:
    """Modelled; on an A100 with half of its cache, too."""
    on_a100 = moved(layer, A100)
    assert 1 <= on_a100.memory <= on_a100.memory_by_half <= GREATEST_ON_A100, on_a100
    on_t4 = moved(layer, T4)
    assert 1 <= on_t4.memory <= layer.greatest_on_t4, on_t4


@pytest.mark.parametrize(
    ("gpu", "registers", "shared_bytes", "threads", "expected"),
    [
        # Blocks by hand: 64 warps, 65536 registers, and 1 KiB of shared memory kept for each block.
        (GPUS[0], 32, 0, 256, 1.0),
        (GPUS[0], 40, 0, 256, 6 * 8 / 64),
        (GPUS[0], 255, 0, 128, 2 * 4 / 64),
        (GPUS[0], 32, 48 * 1024, 128, 3 * 4 / 64),
        (GPUS[1], 32, 48 * 1024, 128, 4 * 4 / 64),
        (GPUS[0], 16, 0, 32, 32 / 64),
    ],
)
def test_occupancy_is_that_of_the_published_limits(
    gpu: Gpu, registers: int, shared_bytes: int, threads: int, expected: float
) -> None:
    assert occupancy(gpu, registers, shared_bytes, threads) == expected


def test_readable_names_agree_between_compilers() -> None:
    by_nvcc = "void ganops::(anonymous namespace)::tiled<__half, ganops::Fir<(int)1, (bool)0> >(ganops::Params)"
    by_gcc = "ganops::tiled<ganops::half_t, ganops::Fir<1, 0> >"
    assert nvcc.readable_name(by_nvcc) == nvcc.readable_name(by_gcc) == "tiled<half_t, Fir<1, 0>>"


def test_instructions_are_counted_by_kind_and_width() -> None:
    sass = """
        /*0010*/                   LDG.E.128.CONSTANT R4, [R2.64] ;   /* 0x0 */
        /*0020*/              @!P0 LDG.E.U16 R4, [R2.64] ;            /* 0x0 */
        /*0030*/                   LDGSTS.E.BYPASS.128 [R4], [R6] ;   /* 0x0 */
        /*0040*/               @P1 HMMA.16816.F32 R8, R4, R6, R8 ;    /* 0x0 */
        /*00a0*/                   STS [R4], R6 ;                     /* 0x0 */
    """
    counts = nvcc.count_instructions(sass)
    assert counts == {"LDG.128": 1, "LDG.16": 1, "LDGSTS.128": 1, "HMMA": 1, "STS.32": 1}
