"""ganops under codebases of each layout: the import hook, patching in place, and the numbers."""

import importlib
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import codebases
import pytest
import torch
import torch.nn.functional as F

import ganops
import ganops.compat
from ganops.compat.served.nvlabs.conv2d_resample import conv2d_resample
from ganops.compat.served.nvlabs.grid_sample_gradfix import grid_sample
from ganops.reference.upfirdn2d import upfirdn2d as reference_upfirdn2d

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def codebase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a codebase and makes it importable; afterwards all is as before."""
    before = dict(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return tmp_path

    yield write
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*a file that ganops replaces was run", RuntimeWarning)
        ganops.compat.uninstall()
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def states() -> dict[str, str]:
    return {entry.module: f"{entry.state} {entry.detail}" for entry in ganops.compat.report()}


def runnable(files: Mapping[str, str]) -> dict[str, str]:
    return {name: text.replace(codebases.UNTOUCHABLE, "") for name, text in files.items()}


def names(module: ModuleType) -> dict[str, object]:
    return dict(vars(module))


def test_operators_are_served_without_running_the_codebases_files(codebase: Write) -> None:
    codebase(codebases.NVLABS)
    ganops.compat.install()
    from torch_utils.ops import bias_act, conv2d_gradfix, filtered_lrelu, upfirdn2d

    x, b, f = noise(2, 3, 9, 8), noise(3, seed=1), ganops.setup_filter([1, 3, 3, 1])
    assert bias_act.activation_funcs["lrelu"].def_gain == pytest.approx(2**0.5)
    assert bias_act.activation_funcs["lrelu"].func(torch.tensor(-1.0), alpha=0.5) == -0.5
    actual = bias_act.bias_act(x, b, 1, "lrelu", 0.1, 2, 0.7, "ref")
    torch.testing.assert_close(actual, ganops.bias_act(x, b, 1, "lrelu", 0.1, 2, 0.7))
    torch.testing.assert_close(upfirdn2d.setup_filter([1, 3, 3, 1]), f)
    assert upfirdn2d._parse_padding([1, 2]) == (1, 1, 2, 2) and upfirdn2d._get_filter_size(f) == (4, 4)
    actual = upfirdn2d.upfirdn2d(x, f, 2, 1, [2, 1, 2, 1], True, 4, "cuda")
    torch.testing.assert_close(actual, ganops.upfirdn2d(x, f, 2, 1, [2, 1, 2, 1], True, 4))
    for name in ("upsample2d", "downsample2d", "filter2d"):
        torch.testing.assert_close(getattr(upfirdn2d, name)(x=x, f=f), getattr(ganops, name)(x, f))
    arguments = (x, f, f, b, 2, 2, [1, 2, 3, 4], 1.5, 0.3, 0.8, True)
    torch.testing.assert_close(filtered_lrelu.filtered_lrelu(*arguments, "ref"), ganops.filtered_lrelu(*arguments))
    conv2d_gradfix.enabled = True
    weight = noise(4, 3, 3, 3)
    torch.testing.assert_close(conv2d_gradfix.conv2d(x, weight, padding=1), F.conv2d(x, weight, padding=1))
    with pytest.raises(ValueError, match="impl must be 'cuda' or 'ref', got 'gpu'"):
        bias_act.bias_act(x, impl="gpu")
    assert states()["torch_utils.ops.bias_act"] == "replaced by ganops.compat.served.nvlabs.bias_act"


@pytest.mark.parametrize("package", ["", "foo.", "src.lib."])
def test_files_that_the_codebase_lacks_are_served(codebase: Write, package: str) -> None:
    inside = {f"{package.replace('.', '/')}torch_utils/__init__.py": ""} if package else {}
    folders = {"foo/__init__.py": "", "src/__init__.py": "", "src/lib/__init__.py": ""} if package else {}
    codebase(folders | inside)
    ganops.compat.install()
    for name in ("bias_act", "conv2d_resample", "filtered_lrelu", "fma", "grid_sample_gradfix", "upfirdn2d"):
        module = importlib.import_module(f"{package}torch_utils.ops.{name}")
        assert module.__file__ and Path(module.__file__).parent.name == "nvlabs"
    fma = importlib.import_module(f"{package}torch_utils.ops.fma").fma
    torch.testing.assert_close(
        fma(noise(3), noise(3, seed=1), noise(3, seed=2)), noise(3) * noise(3, seed=1) + noise(3, seed=2)
    )
    custom_ops = importlib.import_module(f"{package}torch_utils.custom_ops")
    custom_ops.verbosity = "full"
    with pytest.raises(RuntimeError, match="'their_plugin' cannot be compiled"):
        custom_ops.get_plugin("their_plugin", sources=[])
    with pytest.raises(ImportError, match="nothing"):
        importlib.import_module(f"{package}torch_utils.ops.nothing")


def test_the_rest_of_a_codebase_is_its_own(codebase: Write) -> None:
    own = codebases.BIAS_ACT + "\ndef their_own(x):\n    return x + 1\n"
    codebase(codebases.NVLABS | {"torch_utils/ops/bias_act.py": own})
    ganops.compat.install()
    from torch_utils import custom_ops, misc
    from torch_utils.ops.bias_act import bias_act, their_own

    assert misc.profiled_function.__module__ == "torch_utils.misc" and their_own(1) == 2
    assert bias_act(noise(1, 2)).shape == (1, 2)
    with pytest.raises(ImportError, match="nothing"):
        from torch_utils.ops.bias_act import nothing  # noqa: F401
    custom_ops.verbosity = "full"
    assert custom_ops.get_plugin("theirs", ["a.cpp"], headers=["a.h"]) == ("theirs", ["a.cpp"], ["a.h"], "full")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (codebases.BIAS_ACT.replace("b=None", "bias=None"), "no known bias_act has its parameters (x, bias, dim, "),
        (codebases.BIAS_ACT.replace("act='linear'", "act='relu'"), "its default act='relu'"),
        (codebases.BIAS_ACT.replace("impl='cuda'", "impl='cuda', **more"), "impl, ...)"),
    ],
)
def test_what_is_not_recognised_is_left_alone(codebase: Write, source: str, reason: str) -> None:
    codebase(codebases.NVLABS | {"torch_utils/ops/bias_act.py": source})
    ganops.compat.install()
    from torch_utils.ops import bias_act

    with pytest.raises(RuntimeError, match="the codebase's own"):
        bias_act.bias_act(noise(1, 2))
    assert (
        states()["torch_utils.ops.bias_act"].startswith("left alone") and reason in states()["torch_utils.ops.bias_act"]
    )


def test_foreign_modules_of_the_same_name_are_left_alone(codebase: Write) -> None:
    codebase({"fma.py": "value = 1", "lib/__init__.py": "", "lib/custom_ops.py": "def get_plugin(cuda_file): return 2"})
    ganops.compat.install()
    import fma
    from lib import custom_ops

    assert fma.value == 1 and custom_ops.get_plugin("a.cu") == 2
    with pytest.raises(ImportError):
        importlib.import_module("lib.upfirdn2d")
    assert list(states()) == ["lib.custom_ops"]


@pytest.mark.parametrize("lacking", [False, True])
def test_rosinality(codebase: Write, lacking: bool) -> None:
    codebase({} if lacking else codebases.ROSINALITY)
    ganops.compat.install()
    from op import FusedLeakyReLU, fused_leaky_relu, upfirdn2d
    from op import conv2d_gradfix as _  # noqa: F401

    x, b, f = noise(2, 3, 6, 5), noise(3, seed=1), noise(4, 4, seed=2).float()
    torch.testing.assert_close(fused_leaky_relu(x, b, 0.1, 3), F.leaky_relu(x + b[:, None, None], 0.1) * 3)
    torch.testing.assert_close(fused_leaky_relu(x[:, :, 0, 0]), F.leaky_relu(x[:, :, 0, 0], 0.2) * 2**0.5)
    expected = reference_upfirdn2d(x, f, (2, 2), (1, 1), (2, 1, 2, 1), False, 1)
    torch.testing.assert_close(upfirdn2d(x, f, up=2, pad=(2, 1)), expected)
    torch.testing.assert_close(upfirdn2d(x, f, 2, 1, (2, 1, 2, 1)), expected)
    layer = FusedLeakyReLU(3, negative_slope=0.3)
    assert list(layer.state_dict()) == ["bias"] and FusedLeakyReLU(3, False).bias is None
    torch.testing.assert_close(layer.double()(x), F.leaky_relu(x, 0.3) * 2**0.5)
    assert pickle.loads(pickle.dumps(layer)).negative_slope == 0.3
    assert type(layer).__module__ == "op.fused_act"


def test_basicsr(codebase: Write) -> None:
    codebase(codebases.BASICSR)
    ganops.compat.install()
    from basicsr.ops.fused_act import FusedLeakyReLU, fused_leaky_relu
    from basicsr.ops.upfirdn2d import upfirdn2d

    x, b = noise(2, 3, 6, 5), noise(3, seed=1)
    torch.testing.assert_close(fused_leaky_relu(x, b), F.leaky_relu(x + b[:, None, None], 0.2) * 2**0.5)
    torch.testing.assert_close(FusedLeakyReLU(3, 0.3, 2.0).double()(x), F.leaky_relu(x, 0.3) * 2)
    assert upfirdn2d(x, torch.ones(3, 3), pad=(1, 1)).shape == x.shape


@pytest.mark.parametrize("compiled", [False, True])
def test_mmcv(codebase: Write, compiled: bool) -> None:
    codebase(codebases.MMCV | ({"mmcv/_ext.py": ""} if compiled else {}))
    ganops.compat.install()
    from mmcv.ops import FusedBiasLeakyReLU, bias_act, conv2d_gradfix, filtered_lrelu, upfirdn2d  # noqa: F401
    from mmcv.ops.fused_bias_leakyrelu import fused_bias_leakyrelu

    x, b, f = noise(2, 3, 6, 5), noise(3, seed=1), torch.ones(4, 4)
    expected = ganops.bias_act(x, b, act="lrelu", clamp=0.5)
    torch.testing.assert_close(bias_act(input=x, bias=b, act="lrelu", clamp=0.5, use_custom_op=False), expected)
    torch.testing.assert_close(fused_bias_leakyrelu(x, b), F.leaky_relu(x + b[:, None, None], 0.2) * 2**0.5)
    assert FusedBiasLeakyReLU(3).double()(x).shape == x.shape
    expected = ganops.upfirdn2d(x, f, 2, 1, [2, 1], gain=4)
    torch.testing.assert_close(upfirdn2d(input=x, filter=f, up=2, padding=[2, 1], gain=4), expected)


@pytest.mark.parametrize("keep", [(), ("modulated_conv2d",)])
def test_modulated_conv2d_of_network_files(codebase: Write, keep: tuple[str, ...]) -> None:
    codebase(runnable(codebases.NVLABS))
    from training import networks_stylegan2, networks_stylegan3

    x, weight, styles = noise(2, 3, 6, 5), noise(4, 3, 3, 3, seed=1), noise(2, 3, seed=2)
    calls = [
        lambda: networks_stylegan2.modulated_conv2d(x, weight, styles, noise(2, 1, 6, 5, seed=3), 1, 1, 1, None, True),
        lambda: networks_stylegan2.modulated_conv2d(x, weight, styles, noise(2, 4, 6, 5, seed=3), padding=1),
        lambda: networks_stylegan2.modulated_conv2d(x, weight, styles, demodulate=False, flip_weight=False),
        lambda: networks_stylegan3.modulated_conv2d(x, weight, styles, True, [0, 2], noise(3, seed=3).abs()),
        lambda: networks_stylegan3.modulated_conv2d(x, weight, styles, demodulate=False),
    ]
    own, functions = [call() for call in calls], [n.modulated_conv2d for n in (networks_stylegan2, networks_stylegan3)]
    ganops.compat.install(keep=keep)
    for call, expected in zip(calls, own, strict=True):
        torch.testing.assert_close(call(), expected)
    now = [networks_stylegan2.modulated_conv2d, networks_stylegan3.modulated_conv2d]
    assert [a is b for a, b in zip(functions, now, strict=True)] == [bool(keep)] * 2
    state = states()["training.networks_stylegan2.modulated_conv2d"]
    assert state == ("left alone to be kept" if keep else "patched by ganops.compat.served.nvlabs.networks_stylegan2")


def test_networks_that_come_with_a_pickle(codebase: Write) -> None:
    """torch_utils.persistence runs source that no import sees."""
    codebase(runnable(codebases.NVLABS))
    ganops.compat.install()
    from torch_utils import persistence

    module = persistence._src_to_module(codebases.NETWORKS_STYLEGAN2)
    assert "decorator" not in module.modulated_conv2d.__qualname__
    assert states()[f"{module.__name__}.modulated_conv2d"].startswith("patched")
    ganops.compat.uninstall()
    assert module.modulated_conv2d.__qualname__ == "profiled_function.<locals>.decorator"
    other = persistence._src_to_module(codebases.NETWORKS_STYLEGAN2 + "# another")
    assert other.modulated_conv2d.__qualname__ == "profiled_function.<locals>.decorator"
    ganops.compat.install()
    for loaded in (module, other):
        assert states()[f"{loaded.__name__}.modulated_conv2d"].startswith("patched")


@pytest.mark.parametrize("options", [{}, {"upsample": True}, {"downsample": True}, {"demodulate": False}])
def test_modulated_layers_of_rosinality(codebase: Write, options: dict[str, bool]) -> None:
    codebase(runnable(codebases.ROSINALITY))
    import model

    own, blurs = model.ModulatedConv2d.forward, ([1, 3, 3, 1], [1, 2, 1], [1, 2, 3, 2, 1, 1])
    layers = [model.ModulatedConv2d(3, 4, size, 5, blur_kernel=blur, **options) for size in (1, 3) for blur in blurs]
    x, style = noise(2, 3, 9, 9, dtype=torch.float32), noise(2, 5, seed=1, dtype=torch.float32)
    expected = [layer(x, style) for layer in layers]
    ganops.compat.install()
    assert model.ModulatedConv2d.forward is not own
    torch.testing.assert_close([layer(x, style) for layer in layers], expected)
    layers[0].eps = 1.0  # not what the layer is known for
    torch.testing.assert_close(layers[0](x, style), own(layers[0], x, style))
    ganops.compat.uninstall()
    assert model.ModulatedConv2d.forward is own


def test_loaded_modules_are_patched_in_place_and_restored(codebase: Write) -> None:
    codebase(runnable(codebases.NVLABS | codebases.ROSINALITY))
    import model
    import op.fused_act
    from torch_utils.ops import bias_act, conv2d_gradfix
    from training import networks_stylegan2

    modules = [op, op.fused_act, op.upfirdn2d, model, bias_act, conv2d_gradfix, networks_stylegan2]
    modules = [m for m in modules if isinstance(m, ModuleType)]
    conv2d_gradfix.enabled = True
    before, path, loaded = [names(m) for m in modules], list(sys.meta_path), set(sys.modules)
    layer = model.FusedLeakyReLU(3).double()
    ganops.compat.install()
    x = noise(2, 3, 4, 4)
    torch.testing.assert_close(bias_act.bias_act(x, act="relu"), torch.relu(x) * 2**0.5)
    torch.testing.assert_close(model.upfirdn2d(x, torch.ones(1, 1)), x)  # taken by from ... import
    torch.testing.assert_close(layer(x), F.leaky_relu(x, 0.2) * 2**0.5)
    assert op.fused_act.calls == [] and conv2d_gradfix.enabled is True
    assert isinstance(layer, op.fused_act.FusedLeakyReLU)
    assert states()["op.fused_act"] == "replaced in place by ganops.compat.served.rosinality.fused_act"
    ganops.compat.uninstall()
    for module, expected in zip(modules, before, strict=True):
        assert names(module).keys() == expected.keys()
        assert all(names(module)[name] is value for name, value in expected.items()), module
    assert (
        sys.meta_path == path and {name for name in set(sys.modules) - loaded if not name.startswith("ganops")} == set()
    )
    layer(x)
    assert op.fused_act.calls == ["the codebase's own"]
    with pytest.raises(RuntimeError, match="the codebase's own"):
        model.upfirdn2d(x, torch.ones(1, 1))


def test_served_modules_become_the_codebases_own(codebase: Write) -> None:
    codebase(runnable(codebases.NVLABS | codebases.ROSINALITY))
    ganops.compat.install()
    import model
    from torch_utils.ops import bias_act, fma, grid_sample_gradfix  # noqa: F401

    x = noise(2, 3, 4, 4)
    model.upfirdn2d(x, torch.ones(1, 1))
    ganops.compat.uninstall()
    assert ganops.compat.report() == [] and "torch_utils.ops.fma" not in sys.modules
    assert not hasattr(sys.modules["torch_utils.ops"], "fma")
    for call in (lambda: bias_act.bias_act(x), lambda: model.upfirdn2d(x, torch.ones(1, 1))):
        with pytest.raises(RuntimeError, match="the codebase's own"):
            call()
    import torch_utils.ops.bias_act as again

    assert again is bias_act and str(bias_act.__file__).endswith("torch_utils/ops/bias_act.py")
    with pytest.raises(ImportError):
        import torch_utils.ops.fma as _  # noqa: F401


def test_weight_gradients_can_be_left_out(codebase: Write) -> None:
    codebase({})
    ganops.compat.install()
    from torch_utils.ops import conv2d_gradfix, conv2d_resample

    x, weight = noise(2, 3, 6, 6).requires_grad_(), noise(3, 3, 3, 3, seed=1).requires_grad_()
    for convolve in (conv2d_gradfix.conv2d, conv2d_gradfix.conv_transpose2d, conv2d_resample.conv2d_resample):
        y = convolve(x, weight).square().sum()
        with conv2d_gradfix.no_weight_gradients():
            assert conv2d_gradfix.weight_gradients_disabled is True
            with conv2d_gradfix.no_weight_gradients(disable=False):
                assert conv2d_gradfix.weight_gradients_disabled is True
            y.backward(retain_graph=True)
            assert weight.grad is None and x.grad is not None
            (dx,) = torch.autograd.grad(y, x, create_graph=True)
        assert conv2d_gradfix.weight_gradients_disabled is False
        (second,) = torch.autograd.grad(dx.square().sum(), weight)
        y = convolve(x, weight).square().sum()
        (dx,) = torch.autograd.grad(y, x, create_graph=True)
        torch.testing.assert_close(second, torch.autograd.grad(dx.square().sum(), weight)[0])


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("padding", [1, [2, 1, 0, -2]])
@pytest.mark.parametrize("flips", [(True, False), (False, True)])
def test_conv2d_resample(up: int, down: int, size: int, padding: int | list[int], flips: tuple[bool, bool]) -> None:
    """By definition: filter up, convolve, filter down, with the filter centred."""
    groups, (flip_weight, flip_filter) = 2, flips
    x, w, f = noise(2, 4, 8, 7), noise(6, 2, size, size, seed=1), noise(3, 4, seed=2).float()
    actual = conv2d_resample(x, w, f, up, down, padding, groups, flip_weight, flip_filter)
    x0, x1, y0, y1 = [padding] * 4 if isinstance(padding, int) else padding
    (fh, fw), a, b = f.shape, up > 1, down > 1
    x0 += a * ((fw + up - 1) // 2) + b * ((fw - down + 1) // 2)
    x1 += a * ((fw - up) // 2) + b * ((fw - down) // 2)
    y0 += a * ((fh + up - 1) // 2) + b * ((fh - down + 1) // 2)
    y1 += a * ((fh - up) // 2) + b * ((fh - down) // 2)
    y = reference_upfirdn2d(x, f if a else None, (up, up), (1, 1), (x0, x1, y0, y1), flip_filter, up**2)
    y = F.conv2d(y, w if flip_weight else w.flip([2, 3]), groups=groups)
    y = reference_upfirdn2d(y, f if b else None, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, 1)
    torch.testing.assert_close(actual, y)


def test_grid_sample_has_gradients_of_any_order() -> None:
    x, grid = noise(1, 2, 4, 5).requires_grad_(), (noise(1, 3, 2, 2, seed=1) * 0.7).requires_grad_()

    def second(x: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.autograd.grad(grid_sample(x, grid).square().sum(), (x, grid), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, grid), create_graph=True)

    assert torch.autograd.gradgradcheck(grid_sample, (x, grid))
    assert torch.autograd.gradcheck(second, (x, grid))


def test_bad_arguments(codebase: Write) -> None:
    with pytest.raises(TypeError, match="keep must be a collection of names, got the string 'fma'"):
        ganops.compat.install(keep="fma")
    with pytest.raises(
        ValueError, match=r"keep must hold names among modulated_conv2d, bias_act, .*, got 'convolution'"
    ):
        ganops.compat.install(keep=["fma", "convolution"])
    ganops.compat.install(keep=["fma"])
    ganops.compat.install(keep=("fma",))
    with pytest.raises(RuntimeError, match=r"installed already with keep=\['fma'\]; call uninstall\(\) first"):
        ganops.compat.install()
    ganops.compat.uninstall()
    ganops.compat.uninstall()


def test_the_migration_page_names_what_is_replaced() -> None:
    page = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()
    assert {name for name in ganops.compat.KEEPABLE if f"`{name}`" not in page} == set()
