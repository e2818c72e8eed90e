"""The benchmarks: what they time, how they measure, what they print and save."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from cases import BLUR, DOWN12, RADIAL12, UP12, UP24

import ganops
from ganops.__main__ import main
from ganops.bench import machine, peers, runtimes, scaling, suites
from ganops.bench.calls import OPERATORS, Call, operator
from ganops.bench.clock import CpuClock, CudaClock, Interrupted, Timed, measure
from ganops.bench.jobs import Job, Settings, network_job, operator_job, operator_jobs
from ganops.bench.machine import Peaks
from ganops.bench.networks import NETWORKS, traced
from ganops.bench.parts import parts_of
from ganops.bench.report import Report, Row, compare, totals
from ganops.bench.run import Effort, run_jobs

SETTINGS = Settings(implementations=["reference"])
PEAKS = Peaks(flops=1e9, bandwidth=1e8)


def test_layers_are_those_of_the_network() -> None:
    """StyleGAN2 at 64 pixels, whose layers can be written down."""
    calls = [call for call in traced("sg2-64").calls if call.op == "modulated_conv2d"]
    expected = [("b4.conv1", 4, 512, 3, 1), ("b4.torgb", 4, 3, 1, 1)]
    for size in (8, 16, 32, 64):
        expected.append((f"b{size}.conv0", size // 2, 512, 3, 2))
        expected.append((f"b{size}.conv1", size, 512, 3, 1))
        expected.append((f"b{size}.torgb", size, 3, 1, 1))
    assert [
        (call.layer.split(".", 1)[1], call.shapes["x"][3], call.weight[0], call.weight[2], call.options.get("up", 1))
        for call in calls
    ] == expected
    up = next(call for call in calls if call.layer.endswith("b8.conv0"))
    assert up.options["resample_filter"].tolist() == BLUR.tolist()  # data, though the network has none
    assert up.output_shape() == (1, 512, 8, 8)


def test_equal_work_is_timed_once_and_counted() -> None:
    jobs = [job for job in operator_jobs(["sg2-64"], SETTINGS) if "fc" in job.name]
    assert [(job.name.split(" ")[1], job.count) for job in jobs] == [("mapping.fc0", 8)]


def test_operators_see_no_recorder_afterwards() -> None:
    public = {op: operator(op) for op in OPERATORS}
    traced.__wrapped__("sg2-64")
    assert public == {op: operator(op) for op in OPERATORS} and ganops.modulated_conv2d is public["modulated_conv2d"]


FIRS = [(BLUR, 1, 1), (BLUR, 2, 1), (BLUR, 1, 2), (RADIAL12, 1, 2), (UP24, 4, 1), (UP12, 2, 1), (DOWN12, 1, 2)]


@pytest.mark.parametrize(("f", "up", "down"), FIRS, ids=lambda value: str(getattr(value, "shape", value)))
def test_flops_are_the_products_that_meet_a_sample(f: torch.Tensor, up: int, down: int) -> None:
    """Counted by filtering ones with ones: each output is the number of samples that a tap meets."""
    call = Call("upfirdn2d", "", {"x": (2, 3, 36, 36)}, {"f": f, "up": up, "down": down})

    def met(taps: tuple[int, int], image: torch.Tensor, ups: list[int], downs: list[int]) -> torch.Tensor:
        with ganops.backend("reference"):
            return ganops.upfirdn2d(image, torch.ones(taps[::-1]), up=ups, down=downs)

    ones = torch.ones(2, 3, 36, 36)
    if f.ndim == 2:
        counted = met(tuple(f.shape), ones, [up, up], [down, down]).sum().item()
    else:
        rows = met((len(f), 1), ones, [up, 1], [down, 1])
        counted = rows.sum().item() + met((1, len(f)), torch.ones_like(rows), [1, up], [1, down]).sum().item()
    # Where upsampling leaves the last samples' zeros outside, a phase may have one tap less.
    assert call.flops() == pytest.approx(2 * counted, rel=0.02)


def test_flops_of_a_convolution_and_of_its_parts() -> None:
    shapes = {"x": (2, 8, 10, 12), "weight": (5, 8, 3, 3), "styles": (2, 8)}
    plain = Call("modulated_conv2d", "", shapes, {"padding": 1})
    assert plain.product_flops() == 2 * 2 * 5 * 8 * 9 * 120
    assert plain.flops() == plain.product_flops() + 4 * 2 * 5 * 120
    up = Call("modulated_conv2d", "", shapes, {"padding": 1, "up": 2, "resample_filter": BLUR})
    assert up.product_flops() == plain.product_flops()
    assert up.flops() - up.product_flops() == 2 * 5 * 480 * (2 * 16 + 4)
    assert plain.elements() == 2 * 8 * 120 + 5 * 8 * 9 + 16 + 2 * 5 * 120
    (blur,) = parts_of(up)
    assert blur.op == "upfirdn2d" and blur.shapes["x"] == (2, 5, 21, 25) and blur.output_shape() == (2, 5, 20, 24)


def test_a_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    assert PEAKS.floor_ms(1e9, 1.0) == pytest.approx(1000)
    assert PEAKS.floor_ms(1.0, 1e9) == pytest.approx(10000)


def test_the_scaling_suite_grows_by_what_it_says() -> None:
    jobs = suites.jobs("scaling", SETTINGS, quick=False, batch=1, words=[])
    series: dict[str, list[Job]] = {}
    for job in jobs:
        series.setdefault(job.series, []).append(job)
    assert len(series) == 5 * 3 and all(len(points) == 3 for points in series.values())
    for name, points in series.items():
        growth = [point.flops / points[0].flops for point in points]
        assert growth == pytest.approx([1, 2, 4], rel=0.35 if "pixels" in name else 0.01), name  # pixels have margins


def test_every_suite_has_its_jobs() -> None:
    names = [job.name for job in suites.jobs("peers", SETTINGS, quick=True, batch=1, words=[])]
    assert names[:3] == ["sg2-64", "sg3t-64", "sg3r-64"] and "sg2-64 R1, malloc keeps" in names
    assert "sg3t-64 bfloat16, malloc keeps" in names and "mobile, malloc keeps" in names
    assert len(suites.jobs("models", SETTINGS, quick=True, batch=1, words=[])) == 5
    training = suites.jobs("training", SETTINGS, quick=True, batch=1, words=[])
    assert [job.name for job in training] == [f"sg2-64 {part}" for part in ("G main", "path length", "D main", "R1")]
    assert training[0].shape == (4, 3, 64, 64)


def test_one_thread_is_an_implementation_and_leaves_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    made = {"reference": lambda: threads.append(-1), "cpu": lambda: threads.append(0)}
    functions = scaling._on_threads(Job("", (1,), "float32", "forward", [], lambda: dict(made)), "cpu").prepare()
    assert list(functions) == ["reference", "cpu", "1 thread"]
    functions["1 thread"]()
    assert threads == [1, 0, 2]


class FakeClock(CpuClock):
    def first_run(self, function: Callable[[], Any]) -> tuple[Any, float | None]:
        return function(), 1.5


def test_implementations_run_in_turn() -> None:
    order: list[str] = []
    functions = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    results = measure(functions, FakeClock(), repeat=3, seconds=100)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"  # the first round warms up
    assert [len(timed.milliseconds) for timed in results.values()] == [3, 3] and results["a"].peak_mib == 1.5


def test_a_slow_case_runs_less_often_but_once() -> None:
    results = measure({"a": lambda: None}, FakeClock(), repeat=3, seconds=0)
    assert len(results["a"].milliseconds) == 1


def test_one_that_fails_does_not_stop_the_others() -> None:
    def fails() -> None:
        raise RuntimeError("no\nkernel")

    results = measure({"bad": fails, "good": lambda: None}, FakeClock(), 2, 100)
    assert results["bad"].error == "no kernel" and len(results["good"].milliseconds) == 2


def test_results_are_compared_with_the_first() -> None:
    x = torch.tensor([3.0, 4.0])
    results = measure({"a": lambda: x, "b": lambda: x + 0.5, "c": lambda: x[:1]}, FakeClock(), 1, 100)
    expected = 0.5 / math.sqrt(12.5)
    assert results["a"].difference is None and results["b"].difference == pytest.approx(expected)
    assert results["c"].difference is None


def test_interrupted_runs_keep_what_they_have() -> None:
    runs: list[int] = []

    def interrupts() -> None:
        runs.append(1)
        if len(runs) == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        measure({"a": interrupts}, FakeClock(), repeat=9, seconds=100)
    assert len(stopped.value.results["a"].milliseconds) == 1

    runs.clear()
    said: list[str] = []
    result = Report({}, {"float32": PEAKS})
    jobs = [Job(name, (1,), "float32", "forward", [], lambda: {"cpu": interrupts}) for name in ("first", "second")]
    assert not run_jobs(jobs, result, FakeClock(), Effort(9, 100), "cpu", [], said.append)
    assert [row.name for row in result.rows] == ["first"] and said[-1].startswith("first ")


def test_memory_is_that_of_the_call() -> None:
    keep = torch.ones(2**20)
    _, none = CpuClock().first_run(lambda: keep.sum())
    y, some = CpuClock().first_run(lambda: torch.ones(2**24))
    if some is None or none is None:
        pytest.skip("no /proc/self/clear_refs")
    assert none < 16 and 60 < some < 80 and y.numel() == 2**24  # MiB


class FakeCuda:
    """Records what CudaClock does, as no GPU is here."""

    def __init__(self, log: list[str], captures: bool) -> None:
        self.log, self.captures = log, captures
        self.CUDAGraph = lambda: self
        self.replay = lambda: log.append("replay")
        self.Event = lambda enable_timing: FakeEvent(log)
        self.Stream = self.current_stream = lambda: self
        self.wait_stream = lambda stream: log.append("wait")
        self.synchronize = self.reset_peak_memory_stats = lambda: None
        self.memory_allocated, self.max_memory_allocated = (lambda: 2**20), (lambda: 3 * 2**20)
        self.stream = self.graph = lambda what: self

    def __enter__(self) -> None:
        self.log.append("enter")

    def __exit__(self, *_: object) -> None:
        if self.log.count("enter") == 2 and not self.captures:
            raise RuntimeError("not permitted")

    def zero_(self) -> None:
        self.log.append("flush")


class FakeEvent:
    def __init__(self, log: list[str]) -> None:
        self.record = lambda: log.append("event")
        self.synchronize = lambda: None
        self.elapsed_time = lambda end: 1.25


@pytest.mark.parametrize("captures", [True, False])
def test_cuda_times_a_replay_between_events_on_a_flushed_cache(captures: bool, capsys: Any) -> None:
    log: list[str] = []
    cuda = FakeCuda(log, captures)
    timer = CudaClock(cuda, lambda *_, **__: cuda)
    timed = timer.prepare(lambda: log.append("call"))
    assert log == ["wait", "enter", "call", "call", "call", "wait", "enter", "call"]
    log.clear()
    assert timed() == 1.25
    assert log == ["flush", "event", "replay" if captures else "call", "event"]
    assert ("launches are timed as well" in capsys.readouterr().err) != captures
    assert timer.first_run(lambda: 7) == (7, 2.0)


def row(name: str, cpu: list[float], peer: list[float], group: str = "", count: int = 1) -> Row:
    times = {"cpu": Timed(cpu, 3.0), "peer": Timed(peer)}
    return Row(name, [1, 2], "float32", "forward", 4e6, 2e6, 1.0, "cpu", times, group, count)


def test_a_row_is_one_line() -> None:
    from ganops.bench.report import columns, line

    text = line(row("layer", [2.0, 4.0, 3.0], [9.0]), ["peer", "absent"])
    # 2 MB and 4 MFLOP in 3 ms, a floor of 1 ms, 9 ms by the peer
    assert " ".join(text.split()) == "layer 1x2 float32 forward 3.000 2.500 - 3.500 0.7 1.3 33 3 3.00"
    assert columns(["peer"]).split()[-2:] == ["x", "peer"]
    failed = Row("layer", [1], "float32", "forward", 1, 1, 1.0, "cpu", {"cpu": Timed(error="why")})
    assert line(failed, []).endswith("cpu: why")


def test_groups_are_summed_by_how_often_a_network_has_a_layer() -> None:
    rows = [row("a", [1.0], [4.0], "net op", 3), row("b", [2.0], [1.0], "net op"), row("c", [5.0], [5.0], "alone op")]
    (total,) = totals(rows)
    assert total.name == "sum of net op" and total.median("cpu") == 5 and total.median("peer") == 13
    assert total.floor_ms == 4 and total.ratio("peer") == pytest.approx(2.6)


def test_reports_are_saved_and_compared(tmp_path: Path) -> None:
    described = {"processor": "P", "threads": 1, "malloc": "default", "torch": "2", "commit": "abc", "date": "today"}
    old = Report(described, {"float32": PEAKS}, {}, [row("a", [4.0], []), row("gone", [1.0], [])])
    old.save(tmp_path / "old.json")
    loaded = Report.load(tmp_path / "old.json")
    assert loaded == old
    new = Report({**described, "threads": 2}, {"float32": PEAKS}, {}, [row("a", [8.0], []), row("new", [1.0], [])])
    assert compare(loaded, new) == [
        "compared with commit abc of today",
        "not the same threads: 1, now 2",
        "slower   0.50x      4.000 ->     8.000 ms  a [1, 2] float32 forward",
        "1 of its rows were not measured now",
    ]
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match=r"bad\.json is no file that --json wrote"):
        Report.load(tmp_path / "bad.json")


TINY = ["--suite", "ops", "--quick", "--filter", "mapping.fc0", "--threads", "1", "--repeat", "1"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PRODUCT_SIZE", 256)
    monkeypatch.setattr(machine, "COPY_BYTES", 2**24)
    saved, picture = tmp_path / "run.json", tmp_path / "run.png"
    assert main(["bench", *TINY, "--json", str(saved), "--plot", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "sg2-64 mapping.fc0 bias_act (lrelu)" in text and "peaks, float32: " in text and "% floor" in text
    content = json.loads(saved.read_text())
    assert content["machine"]["torch"] == torch.__version__ and content["machine"]["threads"] == 1
    assert content["peaks"]["float32"]["bandwidth"] > 1e8
    assert all(len(entry["times"]["reference"]["milliseconds"]) == 3 for entry in content["rows"])
    with PIL.Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 300
    assert main(["bench", *TINY, "--backward", "--compare", str(saved)]) == 0
    text = capsys.readouterr().out
    assert "forward+backward" in text and "compared with commit" in text


def test_a_checkout_has_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    path = Path(__file__).resolve().parents[1] / "benchmarks" / "run.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name="__main__")
    assert stopped.value.code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--filter", "nothing"], "--filter: no case is named so; there are: sg2-64 mapping"),
        (["--repeat", "0"], "expected a positive integer, got '0'"),
        (["--impl", "magic"], "--impl must be of reference, compile, cpu, cuda, openvino, onnxruntime, got 'magic'"),
        (["--impl", "cuda"], "--impl cuda: needs --device cuda"),
        (["--peer", "stylegan9=/"], "expected one of stylegan3=PATH, stylegan2-ada=PATH, rosinality=PATH"),
        (["--peer", "stylegan3=/no/such/folder"], "'/no/such/folder' is no folder"),
        (["--compare", "/no/such/file"], "/no/such/file does not exist"),
        (["--json", "/no/such/folder/a.json"], "folder '/no/such/folder' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["bench", "--quick", *arguments])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2 and message in capsys.readouterr().err


NVLABS_OP = """
import pkg_resources
def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    assert impl == "ref" and act == "linear" and pkg_resources.parse_version("2.10") > "2.9"
    return x + b[:, None, None]
"""
ROSINALITY_OP = """
from torch.utils.cpp_extension import load
kernels = load("fused", sources=["fused.cu"])
def fused_leaky_relu(x, b, slope, scale):
    return scale * (x + b[:, None, None]).where(x + b[:, None, None] > 0, slope * (x + b[:, None, None]))
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_checkout_is_imported_beside_another_of_the_same_names(tmp_path: Path) -> None:
    for name, addend in (("one", "x + b"), ("two", "2 + x + b")):
        write(tmp_path / name, {"torch_utils/__init__.py": "", "torch_utils/ops/__init__.py": ""})
        write(tmp_path / name, {"torch_utils/ops/bias_act.py": NVLABS_OP.replace("x + b", addend)})
    before = set(sys.modules)
    one, two = (peers.load_peer(f"{name}={tmp_path / folder}") for name, folder in
                (("stylegan3", "one"), ("stylegan2-ada", "two")))  # fmt: skip
    assert not {name for name in set(sys.modules) - before if name.startswith(("torch_utils", "pkg_resources"))}
    call = Call("bias_act", "", {"x": (1, 2, 3, 3), "b": (2,)})
    tensors = call.tensors(torch.float32)
    first, second = one.operator(call), two.operator(call)
    assert first is not None and second is not None
    torch.testing.assert_close(first(tensors), call.run(tensors))
    torch.testing.assert_close(second(tensors), call.run(tensors) + 2)
    assert one.operator(Call("filtered_lrelu", "", {"x": (1, 1, 2, 2)})) is None


def test_a_checkout_that_compiles_at_import_does_not(tmp_path: Path) -> None:
    write(tmp_path, {"op/__init__.py": ROSINALITY_OP})
    peer = peers.load_peer(f"rosinality={tmp_path}")
    call = Call("bias_act", "", {"x": (1, 2, 3, 3), "b": (2,)}, {"act": "lrelu"})
    run = peer.operator(call)
    assert run is not None
    tensors = call.tensors(torch.float32)
    torch.testing.assert_close(run(tensors), call.run(tensors))
    assert peer.operator(Call("bias_act", "", call.shapes, {"act": "lrelu", "clamp": 1.0})) is None


def test_a_peer_is_timed_beside_the_reference(tmp_path: Path) -> None:
    write(tmp_path, {"op/__init__.py": ROSINALITY_OP})
    settings = Settings(implementations=["reference"], peers=[peers.load_peer(f"rosinality={tmp_path}")])
    call = Call("bias_act", "layer", {"x": (1, 2, 3, 3), "b": (2,)}, {"act": "lrelu"})
    result = measure(operator_job(call, settings).prepare(), FakeClock(), 1, 100)
    assert list(result) == ["reference", "rosinality"]
    assert result["rosinality"].difference is not None and result["rosinality"].difference < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
@pytest.mark.parametrize("name", ["sg2-64", "sg3t-64", "mobile"])
def test_an_exported_network_draws_the_same_image(name: str, runtime: str) -> None:
    if reason := runtimes.missing(runtime):
        pytest.skip(reason)
    settings = Settings(implementations=["reference", runtime])
    result = measure(network_job(NETWORKS[name], settings).prepare(), FakeClock(), 1, 0)
    assert not result[runtime].error and result[runtime].difference is not None
    assert result[runtime].difference < 1e-3
