"""Every implementation against oracles that share no code with it: numpy and scipy in float64."""

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import ganops

Array = NDArray[np.float64]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}

factor, taps, size = st.integers(1, 4), st.integers(1, 13), st.integers(1, 12)
pads = st.lists(st.integers(-4, 9), min_size=4, max_size=4)
dtypes = st.sampled_from(list(TOLERANCE))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def filters(draw: st.DrawFn) -> Array | None:
    shape = draw(st.one_of(st.none(), st.tuples(taps), st.tuples(taps, taps)))
    return None if shape is None else np.random.default_rng(draw(seeds)).normal(size=shape).astype(np.float32)


def full_filter(f: Array | None) -> Array:
    exact = np.ones((1, 1)) if f is None else f.astype(np.float64)
    return np.outer(exact, exact) if exact.ndim == 1 else exact


def pad_or_crop(image: Array, padding: list[int]) -> Array:
    x0, x1, y0, y1 = padding
    image = np.pad(image, [(max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))])
    return image[max(-y0, 0) : image.shape[0] - max(-y1, 0), max(-x0, 0) : image.shape[1] - max(-x1, 0)]


def upfirdn2d(x: Array, f: Array | None, up: list[int], down: list[int], padding: list[int], flip: bool) -> Array:
    """One plane, by scipy: zeros by upfirdn with one tap, then a full convolution cut to its valid part."""
    image = x
    for axis, u in ((1, up[0]), (0, up[1])):
        spread = scipy.signal.upfirdn([1.0], image, u, axis=axis)  # lacks the zeros after the last sample
        image = np.concatenate([spread, np.zeros_like(spread.take(range(1), axis)).repeat(u - 1, axis)], axis)
    kernel = full_filter(f)
    kernel = kernel[::-1, ::-1] if flip else kernel
    image = scipy.signal.convolve2d(pad_or_crop(image, padding), kernel, mode="valid")
    return image[:: down[1], :: down[0]]


def is_large_enough(x: Array, f: Array | None, up: list[int], padding: list[int]) -> bool:
    height, width = full_filter(f).shape
    return (
        x.shape[-1] * up[0] + sum(padding[:2]) >= width
        and x.shape[-2] * up[1] + sum(padding[2:]) >= height
        and x.shape[-1] * up[0] + min(0, padding[0]) + min(0, padding[1]) > 0
        and x.shape[-2] * up[1] + min(0, padding[2]) + min(0, padding[3]) > 0
    )


def check(actual: torch.Tensor, expected: Array, dtype: torch.dtype) -> None:
    assert tuple(actual.shape) == expected.shape
    scale = max(np.abs(expected).max(initial=0), 1.0)
    assert np.abs(actual.double().cpu().numpy() - expected).max(initial=0) <= TOLERANCE[dtype] * scale


def to_torch(value: Array | None, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor | None:
    return None if value is None else torch.tensor(value, dtype=dtype, device=device)


def planes(seed: int, dtype: torch.dtype, *shape: int) -> Array:
    values = np.random.default_rng(seed).normal(size=shape)
    return values.astype(np.float32).astype(np.float64) if dtype == torch.float32 else values


@pytest.mark.emulated
@given(size, size, filters(), st.tuples(factor, factor), st.tuples(factor, factor), pads, st.booleans(), dtypes, seeds)
def test_upfirdn2d(impl, device, height, width, f, up, down, padding, flip, dtype, seed) -> None:
    x = planes(seed, dtype, 1, 2, height, width)
    args = (list(up), list(down), padding, flip)
    with ganops.backend(impl):
        if not is_large_enough(x, f, list(up), padding):
            return
        y = ganops.upfirdn2d(to_torch(x, device, dtype), to_torch(f, device), *args, gain=1.5)
    check(y, 1.5 * np.stack([[upfirdn2d(plane, f, *args) for plane in x[0]]]), dtype)


@pytest.mark.emulated
@given(size, size, filters(), filters(), factor, factor, pads, st.booleans(), st.floats(0.1, 2), dtypes, seeds)
def test_filtered_lrelu(impl, device, height, width, fu, fd, up, down, padding, flip, clamp, dtype, seed) -> None:
    x, b = planes(seed, dtype, 1, 2, height, width), planes(seed + 1, dtype, 2)
    up2 = [up, up]
    if not is_large_enough(x, fu, up2, padding):
        return
    upsampled = [upfirdn2d(p + bias, fu, up2, [1, 1], padding, flip) * up**2 for p, bias in zip(x[0], b, strict=True)]
    if upsampled[0].shape[0] < full_filter(fd).shape[0] or upsampled[0].shape[1] < full_filter(fd).shape[1]:
        return
    expected = [
        upfirdn2d(np.clip(np.where(u < 0, 0.3 * u, u) * 1.2, -clamp, clamp), fd, [1, 1], [down] * 2, [0] * 4, flip)
        for u in upsampled
    ]
    with ganops.backend(impl):
        y = ganops.filtered_lrelu(
            to_torch(x, device, dtype),
            to_torch(fu, device),
            to_torch(fd, device),
            to_torch(b, device, dtype),
            up=up,
            down=down,
            padding=padding,
            gain=1.2,
            slope=0.3,
            clamp=clamp,
            flip_filter=flip,
        )
    check(y, np.stack([expected]), dtype)


def convolve(x: Array, kernels: Array, demodulate: bool, padding: int, flip: bool) -> Array:
    """Each sample with its own kernels, [N, O, I, kh, kw], by scipy."""
    if demodulate:
        kernels = kernels / np.sqrt((kernels**2).sum((2, 3, 4), keepdims=True) + 1e-8)
    if not flip:
        kernels = kernels[..., ::-1, ::-1]

    def plane(n: int, o: int) -> Array:
        pairs = zip(x[n], kernels[n, o], strict=True)
        return sum(scipy.signal.correlate2d(np.pad(image, padding), kernel, "valid") for image, kernel in pairs)

    return np.stack([[plane(n, o) for o in range(kernels.shape[1])] for n in range(len(x))])


@pytest.mark.emulated
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([1, 2, 3]),
    st.integers(3, 8),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["none", "max", "rms"]),
    dtypes,
    seeds,
)
def test_modulated_conv2d(impl, device, n, i, o, k, size, padding, demodulate, flip, prenormalize, dtype, seed) -> None:
    x, w, s = (planes(seed + j, dtype, *shape) for j, shape in enumerate([(n, i, size, size), (o, i, k, k), (n, i)]))
    noise, b = planes(seed + 3, dtype, n, 1, *[size + 2 * padding - k + 1] * 2), planes(seed + 4, dtype, o)
    weight, styles = w, s
    if demodulate and prenormalize == "max":
        weight = w / (np.abs(w).max((1, 2, 3), keepdims=True) * np.sqrt(i * k * k))
        styles = s / np.abs(s).max(1, keepdims=True)
    elif demodulate and prenormalize == "rms":
        weight = w / np.sqrt(np.mean(w**2, (1, 2, 3), keepdims=True))
        styles = s / np.sqrt(np.mean(s**2))
    expected = convolve(x, weight[None] * styles[:, None, :, None, None], demodulate, padding, flip)
    expected = expected + noise + b[None, :, None, None]
    expected = np.where(expected < 0, 0.2 * expected, expected) * np.sqrt(2)
    with ganops.backend(impl):
        y = ganops.modulated_conv2d(
            *(to_torch(t, device, dtype) for t in (x, w, s)),
            demodulate=demodulate,
            prenormalize=prenormalize,
            padding=padding,
            flip_weight=flip,
            noise=to_torch(noise, device, dtype),
            bias=to_torch(b, device, dtype),
            act="lrelu",
        )
    check(y, expected, dtype)


@pytest.mark.emulated
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans(), dtypes, seeds)
def test_adaptive_modulated_conv2d(impl, device, n, i, filters, demodulate, flip, dtype, seed) -> None:
    shapes = [(n, i, 5, 6), (filters, 3, i, 3, 3), (n, i), (n, filters)]
    x, bank, s, logits = (planes(seed + j, dtype, *shape) for j, shape in enumerate(shapes))
    weights = np.tensordot(scipy.special.softmax(logits, axis=1), bank, 1) * (s[:, None, :, None, None] + 1)
    expected = convolve(x, weights, demodulate, 1, flip)
    with ganops.backend(impl):
        y = ganops.adaptive_modulated_conv2d(
            *(to_torch(t, device, dtype) for t in (x, bank, s, logits)),
            demodulate=demodulate,
            padding=1,
            flip_weight=flip,
        )
    check(y, expected, dtype)


SQRT2 = 2**0.5
ACTIVATIONS = {
    "linear": lambda u: u,
    "relu": lambda u: np.maximum(u, 0) * SQRT2,
    "lrelu": lambda u: np.where(u < 0, 0.2 * u, u) * SQRT2,
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
    "elu": lambda u: np.where(u < 0, np.expm1(np.minimum(u, 0)), u),
    "selu": lambda u: 1.0507009873554805 * np.where(u < 0, 1.6732632423543772 * np.expm1(np.minimum(u, 0)), u),
    "softplus": lambda u: np.logaddexp(u, 0),
    "swish": lambda u: u * scipy.special.expit(u) * SQRT2,
    "gelu": lambda u: u * scipy.special.ndtr(u),
}


@pytest.mark.emulated
@pytest.mark.parametrize("act", ACTIVATIONS)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data(), dtypes, seeds)
def test_bias_act(impl, device, act, shape, data, dtype, seed) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, b = 4 * planes(seed, dtype, *shape), planes(seed + 1, dtype, shape[dim])
    along = [1] * len(shape)
    along[dim] = shape[dim]
    with ganops.backend(impl):
        y = ganops.bias_act(to_torch(x, device, dtype), to_torch(b, device, dtype), dim=dim, act=act, clamp=3.0)
    check(y, np.clip(ACTIVATIONS[act](x + b.reshape(along)), -3, 3), dtype)


@given(size, size, filters(), st.tuples(factor, factor), st.booleans(), seeds)
def test_resampling_keeps_sizes_and_brightness(impl, device, height, width, f, factors, flip, seed) -> None:
    x = torch.ones(1, 2, height * factors[1], width * factors[0], dtype=torch.float64, device=device)
    normal = None if f is None else ganops.setup_filter(np.abs(f).tolist(), device=device)
    with ganops.backend(impl):
        small = ganops.downsample2d(x, normal, down=list(factors), flip_filter=flip)
        same = ganops.filter2d(x, normal, flip_filter=flip)
        large = ganops.upsample2d(x, normal, up=list(factors), flip_filter=flip)
    assert small.shape == (1, 2, height, width)
    assert same.shape == x.shape
    assert large.shape == (1, 2, height * factors[1] ** 2, width * factors[0] ** 2)
    assert max(small.max(), same.max()) <= 1 + 1e-6  # zeros beyond the edge only darken


def test_setup_filter() -> None:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    f = ganops.setup_filter(taps, gain=4)
    assert f.dtype == torch.float32 and f.shape == (4, 4)
    torch.testing.assert_close(f, (taps.outer(taps) / 64 * 4).float())
    assert taps.tolist() == [1, 3, 3, 1]
    longer = ganops.setup_filter(list(range(1, 9)), gain=9, flip_filter=True)
    torch.testing.assert_close(longer, torch.arange(8.0, 0, -1) / 36 * 3)
    assert ganops.setup_filter(None).tolist() == [[1.0]]
    assert ganops.setup_filter([2, 2], separable=True, normalize=False).tolist() == [2, 2]
    with pytest.raises(ValueError, match="f must be"):
        ganops.setup_filter([])
    with pytest.raises(ValueError, match="separable"):
        ganops.setup_filter([[1, 2], [3, 4]], separable=True)
