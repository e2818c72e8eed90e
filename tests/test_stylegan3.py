"""StyleGAN3: every implementation against the reference, to second order; and what the paper says of each part."""

import copy
import functools
import math

import pytest
import scipy.signal
import scipy.special
import torch
from networks import gradients_of, normal, relative_errors

import ganops
from ganops.models import losses
from ganops.models.filters import kaiser_attenuation, kaiser_beta, lowpass, radial_lowpass
from ganops.models.stylegan3 import CONFIG_R, Generator, MappingNetwork, SynthesisInput

Z_DIM, C_DIM, W_DIM = 7, 3, 8
BATCH = 3
RESOLUTION = 16
CONFIGS = {"T": {}, "R": CONFIG_R}
SMALL = {"channel_base": 64, "channel_max": 6, "num_layers": 3, "num_critical": 1, "margin_size": 3, "conv_clamp": 2}
# RMS errors of gradients: rounding also changes the signs, and so the slopes, of a few of the activations' arguments.
LARGEST_ERROR = {torch.float32: 3e-6, torch.float16: 0.02, torch.bfloat16: 0.07}


def make_generator(config="T", resolution=RESOLUTION, **options):
    """A network, always the same, with every parameter and statistic away from its initial value."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Generator(Z_DIM, C_DIM, W_DIM, resolution, 3, **{**CONFIGS[config], **SMALL, **options})
        for name, value in network.state_dict().items():
            if not name.endswith("filter"):
                value.add_(0.3 * torch.randn_like(value))
                if name.endswith("magnitude_ema"):
                    value.abs_()
    return network


def train_once(backend, device, parameters_dtype, dtype, config):
    """An image, its first-order gradients, and those of path length regularisation."""
    to = {"device": device, "dtype": parameters_dtype}
    network = make_generator(config).to(**to)
    shapes = (BATCH, Z_DIM), (BATCH, C_DIM), (BATCH, 3, RESOLUTION, RESOLUTION)
    z, c, noise = (normal(*shape, seed=1).to(**to) for shape in shapes)
    with ganops.backend(backend):
        image = network(z, c, truncation_psi=0.7, dtype=dtype)
        result = {"outputs": {"image": image.detach().double()}}
        result["first order"] = gradients_of((image * noise).sum(), network)
        ws = network.mapping(z, c)
        loss = losses.PathLengthPenalty().to(**to)(network.synthesis(ws, dtype=dtype), ws, noise)
        result["path length"] = gradients_of(loss, network)
    return result


@functools.cache
def expected_training(config):
    return train_once("reference", "cpu", torch.float64, None, config)


@pytest.mark.emulated
@pytest.mark.parametrize("config", CONFIGS)
def test_training_in_float64_agrees_with_reference(impl, device, config):
    errors = relative_errors(train_once(impl, device, torch.float64, None, config), expected_training(config))
    assert max(errors.values()) < 1e-12, errors


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.emulated), torch.float16], ids=str
)
def test_training_is_as_precise_as_reference(impl, device, dtype, config):
    expected = expected_training(config)
    errors = relative_errors(train_once(impl, device, torch.float32, dtype, config), expected)
    reference = relative_errors(train_once("reference", "cpu", torch.float32, dtype, config), expected)
    assert errors["outputs"] < 1.5 * reference["outputs"]
    assert max(errors.values()) < LARGEST_ERROR[dtype], errors
    assert max(reference.values()) < LARGEST_ERROR[dtype], reference


def test_every_parameter_has_a_gradient():
    found = expected_training("T")
    assert all(gradient.abs().max() > 0 for gradient in found["first order"].values())


FILTERS = [(12, 2.0, 12.0, 32), (24, 8.0, 7.3, 64), (12, 100.0, 60.0, 256), (6, 1.0, 0.2, 4), (13, 3.0, 2.0, 16)]


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), FILTERS)
def test_filters_are_scipys(taps, cutoff, width, rate):
    expected = scipy.signal.firwin(numtaps=taps, cutoff=cutoff, width=width, fs=rate)
    f = lowpass(taps, cutoff, width, rate)
    assert f.dtype == torch.float64
    torch.testing.assert_close(f, torch.tensor(expected), rtol=0, atol=1e-12)

    attenuation = scipy.signal.kaiser_atten(taps, width / (rate / 2))
    assert kaiser_attenuation(taps, width / (rate / 2)) == pytest.approx(attenuation)
    window = torch.tensor(scipy.signal.windows.kaiser(taps, scipy.signal.kaiser_beta(attenuation)))
    x = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    radius = torch.hypot(x, x[:, None])
    jinc = torch.tensor(scipy.special.j1(2 * cutoff * math.pi * radius.numpy())) / (math.pi * radius)
    expected = jinc.nan_to_num(cutoff) * window * window[:, None]
    f = radial_lowpass(taps, cutoff, width, rate)
    torch.testing.assert_close(f, expected / expected.sum(), rtol=0, atol=1e-7)  # torch's J1 is this precise


@pytest.mark.parametrize("attenuation", [10.0, 21.0, 21.5, 35.0, 50.0, 50.5, 90.0])
def test_kaiser_beta_is_scipys(attenuation):
    assert kaiser_beta(attenuation) == pytest.approx(scipy.signal.kaiser_beta(attenuation))


def test_official_names():
    """Layers, their sizes and channels of the published 1024x1024 networks (the paper's figure 4 has T's)."""
    with torch.device("meta"):
        t, r = (Generator(512, 0, 512, 1024, 3, **config).synthesis for config in CONFIGS.values())
    assert t.layer_names == [
        "L0_36_512",
        "L1_36_512",
        "L2_52_512",
        "L3_52_512",
        "L4_84_512",
        "L5_148_512",
        "L6_148_512",
        "L7_276_323",
        "L8_276_203",
        "L9_532_128",
        "L10_1044_81",
        "L11_1044_51",
        "L12_1044_32",
        "L13_1024_32",
        "L14_1024_3",
    ]
    assert r.L4_84_1024.weight.shape == (1024, 1024, 1, 1)
    assert [name for name in t.state_dict() if name.startswith("L3")] == [
        f"L3_52_512.{name}"
        for name in ("weight", "bias", "magnitude_ema", "up_filter", "down_filter", "affine.weight", "affine.bias")
    ]
    assert [list(layer.down_filter.shape) for layer in (r.L4_84_1024, r.L13_1024_64)] == [[12, 12], [12]]
    assert "L14_1024_3.down_filter" not in t.state_dict()


@pytest.mark.parametrize("motion", ["transform", "w"])
def test_input_moves_the_image(motion):
    """Features moved a quarter of the image to the right, then turned by 90 degrees, by either of the two ways."""
    source = SynthesisInput(W_DIM, 4, 32, 32, 6).double()
    w = normal(1, W_DIM)
    still = source(w)
    # The inverse of the image's motion: x and y of a point of the image, to where its content came from.
    if motion == "transform":
        source.transform.copy_(torch.tensor([[0, 1, -0.25], [-1, 0, 0], [0, 0, 1]]))
    else:
        # (cosine, sine, x, y), up to a factor; the translation comes first, and so turns with the rest.
        source.affine.bias.data = torch.tensor([0, -2, 0, 0.5], dtype=torch.float64)
    moved = source(w)
    expected = torch.rot90(still.roll(8, dims=3), -1, dims=(2, 3))
    valid = (slice(None), slice(None), slice(8, None), slice(None))
    torch.testing.assert_close(moved[valid], expected[valid])


def test_features_beyond_the_bandwidth_fade():
    source = SynthesisInput(W_DIM, 64, 16, 16, 4).double()
    w = normal(1, W_DIM)
    assert source.freqs.norm(dim=1).max() <= 4
    for zoom, amplitude in ((1, 1.0), (100, 0.0)):
        source.transform.copy_(torch.eye(3) * torch.tensor([zoom, zoom, 1]))
        source.freqs.copy_(source.freqs / source.freqs.norm(dim=1, keepdim=True) * 4)
        deviation = source(w).std().item()
        assert deviation == pytest.approx(amplitude * math.sqrt(0.5), abs=0.1)


def test_frequencies_fill_a_disc():
    radii = SynthesisInput(W_DIM, 4000, 4, 16, 4).freqs.norm(dim=1) / 4
    for quantile in (0.1, 0.5, 0.9):
        assert radii.quantile(quantile).item() == pytest.approx(math.sqrt(quantile), abs=0.03)


def test_moving_averages():
    network = make_generator()
    z, c = normal(5, Z_DIM, dtype=torch.float32), normal(5, C_DIM, dtype=torch.float32)
    before = copy.deepcopy(network.state_dict())
    network(z, c)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    w = network.mapping(z, c)[:, 0]
    features = network.synthesis.input(w)
    network(z, c, update_emas=True)
    torch.testing.assert_close(network.mapping.w_avg, 0.998 * before["mapping.w_avg"] + 0.002 * w.mean(dim=0))
    name = f"{network.synthesis.layer_names[0]}.magnitude_ema"
    expected = 0.999 * before[f"synthesis.{name}"] + 0.001 * features.square().mean()
    torch.testing.assert_close(network.synthesis.state_dict()[name], expected)


def test_activations_have_unit_magnitude():
    """Section 3.1: with settled averages, the signal before each convolution's weights has unit mean square."""
    network = Generator(64, 0, 64, 32, 3, channel_base=1024, channel_max=64, magnitude_ema_beta=0)
    z = normal(4, 64, dtype=torch.float32)
    network(z, update_emas=True)
    inputs = {}
    for name in network.synthesis.layer_names:
        layer = getattr(network.synthesis, name)
        layer.register_forward_hook(lambda _, args, y, name=name: inputs.__setitem__(name, (args[0], y)))
    network(z)
    for name, (x, _) in inputs.items():
        gain = getattr(network.synthesis, name).magnitude_ema.rsqrt()
        assert (x * gain).square().mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_reduced_precision_and_memory_format(dtype, config):
    network = make_generator(config)
    z, c = normal(BATCH, Z_DIM, dtype=torch.float32), normal(BATCH, C_DIM, dtype=torch.float32)
    seen = []
    for name in network.synthesis.layer_names:
        getattr(network.synthesis, name).register_forward_hook(lambda _, args, y: seen.append(y))
    image = network(z, c)
    assert all(y.dtype == torch.float32 and y.is_contiguous() for y in seen)
    seen.clear()
    reduced = network(z, c, dtype=dtype, channels_last=True)
    assert all(y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last) for y in seen)
    assert reduced.dtype == torch.float32
    assert (reduced - image).square().mean().sqrt() < 0.05 * image.square().mean().sqrt()
    torch.testing.assert_close(network(z, c, channels_last=True), image)


def test_float16_on_cuda_alone():
    """num_fp16_res says which layers."""
    network = make_generator(num_fp16_res=1, resolution=64)
    layers = [getattr(network.synthesis, name) for name in network.synthesis.layer_names]
    assert [layer.use_fp16 for layer in layers] == [layer.out_sampling_rate > 32 for layer in layers]
    assert 0 < sum(layer.use_fp16 for layer in layers) < len(layers)


def test_truncation():
    network = make_generator()
    z, c = normal(2, Z_DIM, dtype=torch.float32), normal(2, C_DIM, dtype=torch.float32)
    w, w_avg = network.mapping(z, c), network.mapping.w_avg
    torch.testing.assert_close(network.mapping(z, c, 0.7, 2)[:, :2], w_avg + 0.7 * (w[:, :2] - w_avg))
    torch.testing.assert_close(network.mapping(z, c, 0.7, 2)[:, 2:], w[:, 2:])
    torch.testing.assert_close(network(z, c, 0), network.synthesis(w_avg.expand_as(w)))


def test_compile_and_export():
    network = make_generator(num_layers=2)
    z, c = normal(2, Z_DIM, dtype=torch.float32), normal(2, C_DIM, dtype=torch.float32)
    image = network(z, c)
    exported = torch.export.export(network, (z, c)).module()
    torch.testing.assert_close(exported(z, c), image)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, c), image)


def test_autocast():
    network = make_generator()
    z, c = normal(2, Z_DIM, dtype=torch.float32), normal(2, C_DIM, dtype=torch.float32)
    image = network(z, c, 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        fast = network(z, c, 0.7, update_emas=True)
    assert fast.dtype == torch.float32
    assert (fast - image).square().mean().sqrt() < 0.1 * image.square().mean().sqrt()


def test_empty_batch():
    network = make_generator()
    assert network(torch.zeros(0, Z_DIM), torch.zeros(0, C_DIM)).shape == (0, 3, RESOLUTION, RESOLUTION)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("img_resolution must be at least 1, got 0", lambda: make_generator(resolution=0)),
        ("bandwidth must be in", lambda: make_generator(resolution=4)),
        ("num_critical must be less than num_layers 3, got 3", lambda: make_generator(num_critical=3)),
        ("num_layers must be at least 1, got 0", lambda: make_generator(num_layers=0)),
        ("first_cutoff must be positive, got -1", lambda: make_generator(first_cutoff=-1)),
        ("last_stopband_rel must be positive, got 0", lambda: make_generator(last_stopband_rel=0)),
        ("channel_base 4 and channel_max 6 leave a layer no channels", lambda: make_generator(channel_base=4)),
        ("conv_kernel must be at least 1, got 0", lambda: make_generator(conv_kernel=0)),
        ("filter_size must be at least 1, got 0", lambda: make_generator(filter_size=0)),
        ("z_dim and c_dim must be at least 0", lambda: MappingNetwork(-1, 0, 4, 3)),
        ("bandwidth must be in", lambda: SynthesisInput(8, 4, 16, 16, 8)),
        ("cutoff must be in", lambda: lowpass(12, 8, 2, 16)),
        ("width must be positive, got 0", lambda: radial_lowpass(12, 4, 0, 16)),
        ("taps must be at least 1, got 0", lambda: lowpass(0, 4, 2, 16)),
    ],
)
def test_bad_constructor_arguments(message, make):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("z must be \\[N, 7\\], got \\[2, 6\\]", lambda g: g(torch.zeros(2, 6), torch.zeros(2, C_DIM))),
        ("c must be \\[N, 3\\], got None", lambda g: g(torch.zeros(2, Z_DIM))),
        ("ws must be \\[N, 5, 8\\], got \\[2, 8\\]", lambda g: g.synthesis(torch.zeros(2, W_DIM))),
        ("noise_mode must be one of", lambda g: g.synthesis(torch.zeros(2, 5, W_DIM), noise_mode="constant")),
        ("w must be \\[N, 8\\]", lambda g: g.synthesis.input(torch.zeros(2, 7))),
        ("x must be \\[N, 6, 22, 22\\]", lambda g: g.synthesis.L1_22_6(torch.zeros(2, 6, 21, 22), torch.zeros(2, 8))),
    ],
)
def test_bad_call_arguments(message, call):
    with pytest.raises(ValueError, match=message):
        call(make_generator())


def test_bad_types():
    with pytest.raises(TypeError, match="dtype must be float16"):
        make_generator().synthesis(torch.zeros(2, 5, W_DIM), dtype=torch.int8)
    with pytest.raises(TypeError, match=r"ws must be a torch\.Tensor"):
        make_generator().synthesis([[0.0]])
