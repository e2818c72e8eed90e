"""StyleGAN2: every implementation against the reference, to second order; and what the papers say of each part."""

import functools
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import gradients_of, normal, relative_errors
from official import SAMPLES_TOLERANCE, STYLEGAN2_SAMPLES, stylegan2_samples
from torch.utils._python_dispatch import TorchDispatchMode

import ganops
from ganops.models import losses, stylegan2
from ganops.models._stylegan2_layers import feature_format
from ganops.models.stylegan2 import (
    Discriminator,
    Generator,
    MappingNetwork,
    MinibatchStdLayer,
    SynthesisLayer,
    mix_styles,
)
from ganops.ops import _convolution
from ganops.ops.conv2d_resample import conv2d_resample

Z_DIM, C_DIM, W_DIM = 7, 3, 8
BATCH = 3
# What one or two activations with another slope add to the RMS error of a gradient: rounding moves a few arguments
# past zero or the clamp, and not the same ones in all implementations.
SLOPES = {torch.float32: 2e-6, torch.float16: 0.05, torch.bfloat16: 0.1}
ARCHITECTURES = ("skip", "resnet", "orig")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def perturbed(make, *args, **kwargs):
    """A network, always the same, with every parameter away from the initial zeros that hide what they multiply."""
    options = {"mapping_kwargs": {"num_layers": 2}, "channel_base": 64, "channel_max": 6, "conv_clamp": 2, **kwargs}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make(*args, **options)
        for name, value in network.state_dict().items():
            if not name.endswith("resample_filter"):
                value.add_(0.5 * torch.randn_like(value))
    return network


def make_generator(resolution=16, **kwargs):
    return perturbed(Generator, Z_DIM, C_DIM, W_DIM, resolution, 3, **kwargs)


def make_discriminator(resolution=16, **kwargs):
    return perturbed(Discriminator, C_DIM, resolution, 3, **kwargs)


def train_once(backend, device, parameters_dtype, dtype, architecture):
    """Outputs, first-order gradients, and those of path length and R1, of a generator and a discriminator."""
    to = {"device": device, "dtype": parameters_dtype}
    generator = make_generator(architecture=architecture).to(**to)
    discriminator = make_discriminator(architecture=architecture).to(**to)
    shapes = (BATCH, Z_DIM), (BATCH, C_DIM), (BATCH, 3, 16, 16)
    z, c, noise = (normal(*shape, seed=1).to(**to) for shape in shapes)
    result = {}
    with ganops.backend(backend):
        ws = generator.mapping(z, c, truncation_psi=0.7)
        image = generator.synthesis(ws, noise_mode="const", dtype=dtype)
        score = discriminator(image, c, dtype=dtype)
        result["outputs"] = {"image": image.detach().double(), "score": score.detach().double()}
        loss = losses.nonsaturating_generator_loss(score)
        result["generator, first order"] = gradients_of(loss, generator)

        image = generator.synthesis(ws := generator.mapping(z, c), noise_mode="const", dtype=dtype)
        loss = losses.PathLengthPenalty().to(**to)(image, ws, noise)
        result["generator, path length"] = gradients_of(loss, generator)

        image = image.detach().requires_grad_()
        score = discriminator(image, c, dtype=dtype)
        loss = losses.r1_penalty(score, image, gamma=10)
        result["discriminator, R1"] = gradients_of(loss, discriminator)
        scores = (discriminator(x, c, dtype=dtype) for x in (noise, image.detach()))
        loss = losses.logistic_discriminator_loss(*scores)
        result["discriminator, first order"] = gradients_of(loss, discriminator)
    return result


@functools.cache
def expected_training(architecture):
    return train_once("reference", "cpu", torch.float64, None, architecture)


@pytest.mark.emulated
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_in_float64_agrees_with_reference(impl, device, architecture):
    actual = train_once(impl, device, torch.float64, None, architecture)
    errors = relative_errors(actual, expected_training(architecture))
    assert max(errors.values()) < 1e-12, errors


@pytest.mark.emulated
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_training_is_as_precise_as_reference(impl, device, dtype, architecture):
    expected = expected_training(architecture)
    errors = relative_errors(train_once(impl, device, torch.float32, dtype, architecture), expected)
    reference = relative_errors(train_once("reference", "cpu", torch.float32, dtype, architecture), expected)
    assert errors["outputs"] < 1.5 * reference["outputs"]
    for part, error in errors.items():
        assert error < 2 * reference[part] + SLOPES[dtype], part
        assert reference[part] < 0.5, part


def test_demodulated_output_has_unit_variance(forced, device):
    """SG2, section 2.2: whatever the styles, a unit normal input gives an output of standard deviation 1."""
    layer = SynthesisLayer(32, 8, W_DIM, resolution=96, activation="linear").to(device)
    styles = normal(4, 32, dtype=torch.float32).exp().to(device)
    x = normal(4, 32, 96, 96, seed=1, dtype=torch.float32).to(device)
    with torch.no_grad():
        y = layer(x, torch.zeros(4, W_DIM, device=device), styles=styles)[:, :, 1:-1, 1:-1]
    assert float(y.std()) == pytest.approx(1, abs=0.02)
    deviations = y.std(dim=[2, 3])
    assert float(deviations.min()) > 0.9 and float(deviations.max()) < 1.1


@pytest.mark.parametrize(("n", "group_size", "channels"), [(6, 3, 1), (6, 2, 2), (3, 4, 1), (8, None, 4), (4, 1, 1)])
def test_minibatch_deviation_by_hand(n, group_size, channels):
    c, height, width = 4, 3, 2
    x = normal(n, c, height, width)
    group = min(group_size or n, n)
    expected = torch.empty(n, channels)
    for sample in range(n):
        members = [other for other in range(n) if other % (n // group) == sample % (n // group)]
        assert len(members) == group
        for f in range(channels):
            deviations = []
            for i in range(f * c // channels, (f + 1) * c // channels):
                for row in range(height):
                    for column in range(width):
                        values = [float(x[m, i, row, column]) for m in members]
                        mean = sum(values) / group
                        deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / group + 1e-8))
            expected[sample, f] = sum(deviations) / len(deviations)
    y = MinibatchStdLayer(group_size, channels)(x)
    assert torch.equal(y[:, :c], x)
    expected = expected.double()[:, :, None, None].expand(-1, -1, height, width)
    torch.testing.assert_close(y[:, c:], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("flip_weight", [True, False])
@pytest.mark.parametrize("padding", [0, 1, [2, -1, 0, 3]], ids=str)
def test_resampled_convolution_by_definition(forced, device, kernel_size, up, down, flip_weight, padding):
    x = normal(2, 3, 7, 8).to(device)
    w = normal(4, 3, kernel_size, kernel_size, seed=1).to(device)
    f = torch.tensor([[1.0, 3, 2, 1], [2, 4, 1, 0], [1, 1, 5, 2], [0, 2, 1, 3]], device=device) / 29
    total = [padding] * 4 if isinstance(padding, int) else list(padding)
    for factor, before, after in ((up, (4 + up - 1) // 2, (4 - up) // 2), (down, (4 - down + 1) // 2, (4 - down) // 2)):
        if factor > 1:
            total = [p + q for p, q in zip(total, [before, after] * 2, strict=True)]
    y = ganops.upfirdn2d(x, f if up > 1 else None, up=up, padding=total, gain=up**2)
    y = F.conv2d(y, w if flip_weight else w.flip([2, 3]))
    expected = ganops.upfirdn2d(y, f if down > 1 else None, down=down)
    actual = conv2d_resample(x, w, f, up, down, padding, flip_weight)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


class Convolutions(TorchDispatchMode):
    """The dtypes in which torch convolves."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "convolution" in str(function) and str(function).startswith("aten"):
            self.dtypes.add(args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("multiplies", [False, True])
def test_torch_convolves_bfloat16_where_the_processor_does(multiplies, monkeypatch):
    monkeypatch.setattr(_convolution, "_multiplies_bfloat16", lambda: multiplies)
    x, w = normal(2, 20, 9, 9).bfloat16().requires_grad_(), normal(24, 20, 3, 3, seed=1).bfloat16().requires_grad_()
    with Convolutions() as seen:
        y = conv2d_resample(x, w, down=2, padding=1)
        gradients = torch.autograd.grad(y, (x, w), torch.ones_like(y))
    assert seen.dtypes == {torch.bfloat16 if multiplies else torch.float32}
    exact = conv2d_resample(x.double(), w.double(), down=2, padding=1)
    expected = exact, *torch.autograd.grad(exact, (x, w), torch.ones_like(exact))
    torch.testing.assert_close((y, *gradients), tuple(t.bfloat16() for t in expected), rtol=2**-7, atol=1e-3)


@pytest.mark.emulated
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_samples_of_the_official_networks(forced, architecture):
    """Only their numbers are here; test_official_stylegan2.py gets them from the networks."""
    samples = stylegan2_samples(stylegan2, architecture)
    assert samples == pytest.approx(STYLEGAN2_SAMPLES[architecture], rel=SAMPLES_TOLERANCE, abs=SAMPLES_TOLERANCE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("resolution", [4, 8, 32])
def test_resolutions(resolution, architecture):
    generator = make_generator(resolution, architecture=architecture, channel_base=128)
    image = generator(normal(2, Z_DIM), normal(2, C_DIM))
    assert image.shape == (2, 3, resolution, resolution) and image.isfinite().all()
    assert generator.num_ws == 2 * math.log2(resolution) - 2
    score = make_discriminator(resolution, architecture=architecture, channel_base=128)(image, normal(2, C_DIM))
    assert score.shape == (2, 1) and score.isfinite().all()


def test_official_names():
    conv = {"weight", "bias", "noise_strength", "noise_const", "resample_filter", "affine.weight", "affine.bias"}
    torgb = {"weight", "bias", "affine.weight", "affine.bias"}
    expected = {"mapping.w_avg", "synthesis.b4.const"}
    expected |= {f"mapping.{layer}.{name}" for layer in ("embed", "fc0", "fc1") for name in ("weight", "bias")}
    expected |= {f"synthesis.{block}.resample_filter" for block in ("b4", "b8")}
    expected |= {f"synthesis.{layer}.{name}" for layer in ("b4.conv1", "b8.conv0", "b8.conv1") for name in conv}
    expected |= {f"synthesis.{block}.torgb.{name}" for block in ("b4", "b8") for name in torgb}
    assert make_generator(8).state_dict().keys() == expected

    conv = {"weight", "bias", "resample_filter"}
    expected = {"b8.resample_filter", "b8.skip.weight", "b8.skip.resample_filter"}
    expected |= {f"mapping.{layer}.{name}" for layer in ("embed", "fc0", "fc1") for name in ("weight", "bias")}
    expected |= {f"{layer}.{name}" for layer in ("b8.fromrgb", "b8.conv0", "b8.conv1", "b4.conv") for name in conv}
    expected |= {f"b4.{layer}.{name}" for layer in ("fc", "out") for name in ("weight", "bias")}
    assert make_discriminator(8).state_dict().keys() == expected


def test_both_ways_to_pass_synthesis_options():
    options = {"channel_base": 32, "channel_max": 4, "num_fp16_res": 0, "fused_modconv_default": "inference_only"}
    as_dict = Generator(4, 0, 5, 8, 1, {"num_layers": 1}, options).state_dict()
    as_keywords = Generator(4, 0, 5, 8, 1, {"num_layers": 1}, **options).state_dict()
    assert {k: v.shape for k, v in as_dict.items()} == {k: v.shape for k, v in as_keywords.items()}
    assert as_dict["synthesis.b8.conv1.weight"].shape == (4, 4, 3, 3)


def test_truncation():
    mapping = make_generator().mapping
    z, c = normal(5, Z_DIM), normal(5, C_DIM)
    w = mapping(z, c)
    assert w.shape == (5, mapping.num_ws, W_DIM)
    expected = mapping.w_avg + 0.7 * (w - mapping.w_avg)
    torch.testing.assert_close(mapping(z, c, truncation_psi=0.7), expected)
    cut = mapping(z, c, truncation_psi=0.7, truncation_cutoff=2)
    torch.testing.assert_close(cut, torch.cat([expected[:, :2], w[:, 2:]], dim=1))
    torch.testing.assert_close(mapping(z, c, truncation_psi=0)[3, 1], mapping.w_avg)


def test_mapping_ignores_the_scale_of_z():
    mapping = make_generator().double().mapping
    z, c = normal(5, Z_DIM), normal(5, C_DIM)
    torch.testing.assert_close(mapping(100 * z, c), mapping(10 * z, c))


def test_moving_average_of_w():
    mapping = make_generator(mapping_kwargs={"num_layers": 2, "w_avg_beta": 0.9}).mapping
    z, c = normal(5, Z_DIM), normal(5, C_DIM)
    before = mapping.w_avg.clone()
    w = mapping(z, c)
    mapping.eval()(z, c, skip_w_avg_update=False)
    mapping.train()(z, c, skip_w_avg_update=True)
    assert torch.equal(mapping.w_avg, before)
    after = 0.9 * before + 0.1 * w[:, 0].mean(dim=0)
    mapping(z, c, update_emas=True)
    torch.testing.assert_close(mapping.w_avg, after)
    mapping.w_avg.copy_(before)
    mapping(z, c, skip_w_avg_update=False)
    torch.testing.assert_close(mapping.w_avg, after)
    assert not mapping.w_avg.requires_grad


def test_w_style_mixing_and_stylespace():
    generator = make_generator()
    synthesis = functools.partial(generator.synthesis, noise_mode="const")
    first, second = (generator.mapping(normal(2, Z_DIM, seed=i), normal(2, C_DIM)) for i in (0, 1))
    image = synthesis(first)
    assert torch.equal(synthesis(first[:, 0]), image)

    mixed = mix_styles(first, second, crossover=3)
    assert torch.equal(mixed, torch.cat([first[:, :3], second[:, 3:]], dim=1))
    each = mix_styles(first, second, torch.tensor([1, first.shape[1]]))
    assert torch.equal(each, torch.stack([torch.cat([first[0, :1], second[0, 1:]]), first[1]]))

    styles = generator.synthesis.styles(first)
    assert list(styles)[:4] == ["b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1"]
    assert torch.equal(synthesis(second, styles=styles), image)
    edited = {"b8.conv1": styles["b8.conv1"] + torch.eye(styles["b8.conv1"].shape[1])[0]}
    assert not torch.allclose(synthesis(first, styles=edited), image)


def test_latent_of_each_layer():
    """torgb shares the latent of the next block's first convolution."""
    latents = {name: i for name, (_, i) in make_generator().synthesis.layers().items()}
    expected = {"b4.conv1": 0, "b4.torgb": 1, "b8.conv0": 1, "b8.conv1": 2, "b8.torgb": 3}
    assert latents == {**expected, "b16.conv0": 3, "b16.conv1": 4, "b16.torgb": 5}


def test_noise():
    generator = make_generator()
    draw = functools.partial(generator, normal(2, Z_DIM), normal(2, C_DIM))
    assert torch.equal(draw(noise_mode="const"), draw(noise_mode="const"))
    random = draw()
    assert not torch.allclose(random, draw()), "noise is new at each call"
    assert not torch.allclose(random[0], draw(noise_mode="const")[0])
    none = draw(noise_mode="none")
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.zero_()
    for mode in ("random", "const"):
        assert torch.equal(draw(noise_mode=mode), none)
    assert "b8.conv0.noise_const" not in make_generator(use_noise=False).synthesis.state_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_reduced_precision_and_memory_format(dtype):
    generator, discriminator = make_generator(), make_discriminator()
    seen = []

    def record(module, inputs, output):
        is_last = output.is_contiguous(memory_format=torch.channels_last) and not output.is_contiguous()
        seen.append((output.dtype, is_last))

    layers = (generator.synthesis.b16.conv1, generator.synthesis.b4.conv1, discriminator.b16.conv1)
    for layer in layers:
        layer.register_forward_hook(record)
    z, c = normal(2, Z_DIM), normal(2, C_DIM)
    results = []
    for options in ({}, {"channels_last": True}, {"dtype": dtype, "channels_last": True}, {"dtype": dtype}):
        image = generator(z, c, noise_mode="const", **options)
        assert image.dtype == torch.float32 and image.is_contiguous()
        score = discriminator(image, c, **options)
        assert score.dtype == torch.float32
        assert seen == [(options.get("dtype", torch.float32), "channels_last" in options)] * 3
        seen.clear()
        results.append((image, score))
    for image, score in results[1:]:
        torch.testing.assert_close(image, results[0][0], atol=0.1, rtol=0.05)
        torch.testing.assert_close(score, results[0][1], atol=0.1, rtol=0.05)
    torch.testing.assert_close(results[1], results[0])


def test_float16_on_cuda_alone():
    blocks = make_generator(32, num_fp16_res=2).synthesis
    assert [blocks.get_submodule(f"b{r}").use_fp16 for r in (4, 8, 16, 32)] == [False, False, True, True]
    discriminator = make_discriminator(32, num_fp16_res=4)
    assert [discriminator.get_submodule(f"b{r}").use_fp16 for r in (8, 16, 32)] == [True, True, True]

    def chosen(device, use_fp16=True, force_fp32=False, dtype=None, channels_last=None):
        chosen = feature_format(torch.device(device), torch.float32, use_fp16, True, force_fp32, dtype, channels_last)
        return chosen["dtype"], chosen["memory_format"]

    full, half = (torch.float32, torch.contiguous_format), (torch.float16, torch.channels_last)
    assert chosen("cuda") == half
    assert chosen("cuda", force_fp32=True) == chosen("cuda", use_fp16=False) == chosen("cpu") == full
    assert chosen("cuda", channels_last=False) == (torch.float16, torch.contiguous_format)
    assert chosen("cpu", dtype=torch.float16, channels_last=True) == half
    assert chosen("cuda", dtype=torch.bfloat16) == (torch.bfloat16, torch.channels_last)


def test_clamp_is_scaled_with_the_gain():
    layer = SynthesisLayer(3, 4, W_DIM, resolution=8, conv_clamp=0.5)
    x, w = 100 * normal(2, 3, 8, 8, dtype=torch.float32), normal(2, W_DIM, dtype=torch.float32)
    assert float(layer(x, w).abs().max().detach()) == 0.5
    assert float(layer(x, w, gain=0.5).abs().max().detach()) == 0.25


@pytest.mark.parametrize("frozen", [0, 1, 3, 5, 100])
def test_frozen_layers(frozen):
    network = make_discriminator(16, block_kwargs={"freeze_layers": frozen})
    order = [f"b16.{name}" for name in ("fromrgb", "conv0", "conv1", "skip")]
    order += [f"b8.{name}" for name in ("conv0", "conv1", "skip")]
    trained = {name.removesuffix(".weight") for name, _ in network.requires_grad_().named_parameters()}
    assert [name for name in order if name in trained] == order[frozen:]
    assert network.state_dict().keys() == make_discriminator(16).state_dict().keys()


def test_compile_and_export():
    z, c = normal(2, Z_DIM), normal(2, C_DIM)
    generator, discriminator = make_generator(8), make_discriminator(8)
    image = generator(z, c, noise_mode="const")
    exported = torch.export.export(generator, (z, c), {"noise_mode": "const"}).module()
    torch.testing.assert_close(exported(z, c, noise_mode="const"), image)
    compiled = torch.compile(discriminator, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image, c), discriminator(image, c))


def test_autocast():
    generator, discriminator = make_generator(), make_discriminator()
    z, c = normal(2, Z_DIM), normal(2, C_DIM)
    image = generator(z, c, noise_mode="const")
    score = discriminator(image, c)
    seen = []
    for layer in (generator.synthesis.b8.conv0, discriminator.b16.conv1):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        reduced_image = generator(z, c, noise_mode="const")
        reduced_score = discriminator(image, c)
    assert seen == [torch.bfloat16] * 2
    torch.testing.assert_close(reduced_image, image, atol=0.1, rtol=0.05)
    torch.testing.assert_close(reduced_score.float(), score, atol=0.1, rtol=0.05)
    gradients = torch.autograd.grad(reduced_score.sum(), list(discriminator.parameters()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("img_resolution must be a power of two, got 12", lambda: make_generator(12)),
        ("img_resolution must be at least 4, got 2", lambda: make_discriminator(2)),
        ("architecture must be one of orig, skip, resnet, got 'u'", lambda: make_generator(8, architecture="u")),
        ("architecture must be one of orig, skip, resnet, got 'u'", lambda: make_discriminator(8, architecture="u")),
        ("channel_base must be at least 256", lambda: make_generator(256, channel_base=128)),
        ("num_fp16_res must be at least 0, got -1", lambda: make_generator(8, num_fp16_res=-1)),
        ("act must be one of", lambda: make_generator(8, activation="sine")),
        ("z_dim and c_dim must be at least 0", lambda: MappingNetwork(0, 0, 4, None)),
        ("num_layers must be at least 1, got 0", lambda: make_generator(8, mapping_kwargs={"num_layers": 0})),
        ("group_size must be at least 1, got 0", lambda: MinibatchStdLayer(0)),
    ],
)
def test_bad_constructor_arguments(message, make):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("z must be \\[N, 7\\], got \\[2, 6\\]", lambda g, d: g(torch.zeros(2, 6), torch.zeros(2, C_DIM))),
        ("c must be \\[N, 3\\], got None", lambda g, d: g(torch.zeros(2, Z_DIM))),
        ("z and c must have as many rows", lambda g, d: g(torch.zeros(2, Z_DIM), torch.zeros(3, C_DIM))),
        ("ws must have shape \\[N, 4, 8\\] or", lambda g, d: g.synthesis(torch.zeros(2, 3, W_DIM))),
        ("noise_mode must be one of", lambda g, d: g.synthesis(torch.zeros(2, W_DIM), noise_mode="constant")),
        ("styles must name layers", lambda g, d: g.synthesis(torch.zeros(2, W_DIM), styles={"b4": torch.zeros(2, 6)})),
        (
            "styles\\['b4.conv1'\\] must have shape \\[2, 6\\]",
            lambda g, d: g.synthesis(torch.zeros(2, W_DIM), styles={"b4.conv1": torch.zeros(2, 5)}),
        ),
        ("ws and other must both be", lambda g, d: mix_styles(torch.zeros(2, 4, 8), torch.zeros(1, 4, 8), 1)),
        ("truncation_psi must be 1 where", lambda g, d: d.mapping(None, torch.zeros(2, C_DIM), truncation_psi=0.5)),
        ("img must be \\[N, 3, 8, 8\\]", lambda g, d: d(torch.zeros(2, 3, 16, 16), torch.zeros(2, C_DIM))),
        ("c must have as many rows as img", lambda g, d: d(torch.zeros(2, 3, 8, 8), torch.zeros(1, C_DIM))),
        ("x must have a multiple of 4 samples", lambda g, d: d(torch.zeros(5, 3, 8, 8), torch.zeros(5, C_DIM))),
    ],
)
def test_bad_call_arguments(message, call):
    with pytest.raises(ValueError, match=message):
        call(make_generator(8), make_discriminator(8))


def test_bad_types():
    with pytest.raises(TypeError, match="dtype must be float16"):
        make_generator(8)(normal(2, Z_DIM), normal(2, C_DIM), dtype=torch.int8)
    with pytest.raises(TypeError, match="w must have x's dtype"):
        conv2d_resample(normal(1, 1, 4, 4), torch.zeros(1, 1, 1, 1))


def test_documentation():
    """Its examples run, here on small images."""
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    section = re.search(r"^## StyleGAN2$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]
    code = "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    names = {}
    exec(code.replace("64", "16").replace("z_dim=512", "channel_max=32, z_dim=512"), names)
    assert names["images"].shape == (4, 3, 16, 16) and names["scores"].shape == (4, 1)
    assert float(names["path_length"].mean) > 0
