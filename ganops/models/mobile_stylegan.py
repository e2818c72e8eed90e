"""MobileStyleGAN: a StyleGAN2 distilled into depthwise-separable convolutions and a wavelet image.

Source: Belousov, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image Synthesis",
arXiv 2104.04767 (2021), section 3. The trained weights (FFHQ, 1024x1024) are those of the ``random-face`` package on
PyPI, Apache-2.0; ganops ships none.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import bias_act, modulated_conv2d
from .openvino_ir import Array, Graph, read_ir

WEIGHTS_PACKAGE = "random_face"
WEIGHTS_HINT = "pip install --no-deps random-face"

STYLE_DIM = 512
MAPPING_LAYERS = 8
CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64)
"""Channels at 4x4, 8x8, ..., 512x512; the image is one inverse wavelet transform larger."""

W_AVG_SAMPLES = 4096
W_AVG_SEED = 0


class MappingNetwork(nn.Module):
    """z to the intermediate latent w: z normalised to unit RMS, then fully connected layers with leaky ReLU.

    ``w_avg`` [style_dim] is the centre of truncation.
    """

    w_avg: Tensor

    def __init__(self, style_dim: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(style_dim, style_dim) for _ in range(num_layers))
        self.register_buffer("w_avg", torch.zeros(style_dim))

    def forward(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """Map z [N, style_dim] to w [N, style_dim], moved towards the mean: ``w_avg + truncation_psi * (w - w_avg)``.

        Raises:
            ValueError: ``z`` is not [N, style_dim].
        """
        _check_latent("z", z, len(self.w_avg))
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = bias_act(layer(x), act="lrelu")
        return x if truncation_psi == 1 else self.w_avg.lerp(x, truncation_psi)


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by a learned affine function of w.

    A depthwise-separable one has ``weight_dw`` [in, 1, 3, 3] beside the pointwise ``weight`` [out, in, 1, 1].
    Demodulation has fixed coefficients (section 3.2), which the checkpoint has folded into ``weight``.
    """

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, kernel_size: int, depthwise: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, in_channels)
        self.weight_dw = nn.Parameter(torch.ones(in_channels, 1, kernel_size, kernel_size)) if depthwise else None
        pointwise_size = 1 if depthwise else kernel_size
        self.weight = nn.Parameter(torch.ones(out_channels, in_channels, pointwise_size, pointwise_size))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, w: Tensor, **epilogue: Any) -> Tensor:
        styles = self.modulation(w) * self.scale
        if self.weight_dw is not None:
            # A factor per channel commutes with a depthwise convolution: modulation can wait for the pointwise one.
            x = F.conv2d(x, self.weight_dw, padding=self.weight_dw.shape[-1] // 2, groups=x.shape[1])
        padding = self.weight.shape[-1] // 2
        return modulated_conv2d(x, self.weight, styles, demodulate=False, padding=padding, **epilogue)


class StyledConv2d(nn.Module):
    """Modulated convolution, constant noise, bias and leaky ReLU (gain 1)."""

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, size: int, depthwise: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, style_dim, kernel_size=3, depthwise=depthwise)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w, noise=self.noise, bias=self.bias, act="lrelu", gain=1)  # type: ignore[no-any-return]


class ModulatedUpsample(nn.Module):
    """Scale the channels, then read them as the four wavelet bands of an image of twice the size."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return inverse_haar(x * self.modulation(w)[:, :, None, None])


class ToImage(nn.Module):
    """The wavelet bands of an RGB image, and the image from them."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(channels, 12, style_dim, kernel_size=1, depthwise=False)
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return inverse_haar(self.conv(x, w, bias=self.bias))


class SynthesisBlock(nn.Module):
    """Double the size, then two styled convolutions."""

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, size: int) -> None:
        super().__init__()
        self.up = ModulatedUpsample(in_channels, style_dim)
        self.conv1 = StyledConv2d(in_channels // 4, out_channels, style_dim, size)
        self.conv2 = StyledConv2d(out_channels, out_channels, style_dim, size)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv2(self.conv1(self.up(x, w), w), w)  # type: ignore[no-any-return]


class ConstantInput(nn.Module):
    """The learned 4x4 image that every synthesis begins with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.ones(1, channels, 4, 4))


class SynthesisNetwork(nn.Module):
    """w to an RGB image."""

    def __init__(self, style_dim: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.style_dim = style_dim
        self.input = ConstantInput(channels[0])
        self.conv1 = StyledConv2d(channels[0], channels[0], style_dim, size=4, depthwise=False)
        self.layers = nn.ModuleList(
            SynthesisBlock(channels[i], channels[i + 1], style_dim, size=8 * 2**i) for i in range(len(channels) - 1)
        )
        self.layers[-1].to_img = ToImage(channels[-1], style_dim)

    def forward(self, w: Tensor) -> Tensor:
        """Draw w [N, style_dim] as images [N, 3, size, size], about in [-1, 1] (not clamped).

        Raises:
            ValueError: ``w`` is not [N, style_dim].
        """
        _check_latent("w", w, self.style_dim)
        # Depthwise convolutions are several times faster in this memory format; every layer keeps it.
        x = self.input.input.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.conv1(x, w)
        for layer in self.layers:
            x = layer(x, w)
        return self.layers[-1].to_img(x, w)  # type: ignore[no-any-return, operator]


class MobileStyleGAN(nn.Module):
    """Mapping and synthesis network; parameter names are those of the checkpoint.

    ``mapping(z, truncation_psi=1.0)`` takes z [N, 512] to w [N, 512]; ``synthesis(w)`` draws images
    [N, 3, 1024, 1024] in about [-1, 1], of w's dtype.
    """

    def __init__(
        self, style_dim: int = STYLE_DIM, mapping_layers: int = MAPPING_LAYERS, channels: Sequence[int] = CHANNELS
    ) -> None:
        super().__init__()
        self.style_dim = style_dim
        self.mapping = MappingNetwork(style_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(style_dim, channels)

    def forward(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """``synthesis(mapping(z, truncation_psi))``."""
        return self.synthesis(self.mapping(z, truncation_psi))  # type: ignore[no-any-return]

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None) -> MobileStyleGAN:
        """The generator with trained weights, in float32 on the CPU and in eval mode.

        The files hold no mean latent, so ``mapping.w_avg`` is the mean of w over ``W_AVG_SAMPLES`` = 4096 normal z
        from a generator seeded with ``W_AVG_SEED`` = 0.

        Args:
            path: folder with ``MappingNetwork.xml``, ``SynthesisNetwork.xml`` and their ``.bin`` files. Without it,
                the data folder of the installed ``random-face`` package, whose code is not run.

        Raises:
            FileNotFoundError: there are no weights; the text says how to get them.
            ValueError: a file is damaged or holds another network.
        """
        folder = find_weights() if path is None else Path(path)
        state = _read_mapping(_read(folder, "MappingNetwork.xml")) | _read_synthesis(
            _read(folder, "SynthesisNetwork.xml")
        )
        model = cls().eval().requires_grad_(False)
        _load(model, state, folder)
        z = torch.randn(W_AVG_SAMPLES, STYLE_DIM, generator=torch.Generator().manual_seed(W_AVG_SEED))
        model.mapping.w_avg.copy_(model.mapping(z).mean(dim=0))
        return model


def inverse_haar(x: Tensor) -> Tensor:
    """One level of the two-dimensional inverse Haar wavelet transform, [N, 4C, H, W] to [N, C, 2H, 2W].

    The first C channels are the low band; channel C + 3c + i is band i of output channel c: 0 differs between rows,
    1 between columns, 2 between both.
    """
    n, bands, height, width = x.shape
    channels = bands // 4
    # Channels go last, so that interleaving pixels moves whole runs of channels.
    x = x.permute(0, 2, 3, 1)
    low = x[..., :channels]
    rows, columns, both = x[..., channels:].reshape(n, height, width, channels, 3).unbind(4)
    # Half sums and half differences, with no pass of its own for the transform's factor 1/2.
    row_mean, column_mean = low.lerp(rows, 0.5), columns.lerp(both, 0.5)
    row_difference, column_difference = low - row_mean, columns - column_mean
    upper = torch.stack([row_mean + column_mean, row_mean - column_mean], dim=3)
    lower = torch.stack([row_difference + column_difference, row_difference - column_difference], dim=3)
    return torch.stack([upper, lower], dim=2).reshape(n, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def find_weights() -> Path:
    """The data folder of the installed ``random-face`` package, found without importing it.

    Raises:
        FileNotFoundError: it is not installed; the text says how to install it.
    """
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "data"
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"MobileStyleGAN's trained weights are not installed; get them with: {WEIGHTS_HINT}")


def _check_latent(name: str, latent: Tensor, style_dim: int) -> None:
    if latent.ndim != 2 or latent.shape[1] != style_dim:
        raise ValueError(f"{name} must be [N, {style_dim}], got {list(latent.shape)}")


def _read(folder: Path, name: str) -> Graph:
    try:
        return read_ir(folder / name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} does not exist; MobileStyleGAN's trained weights come with: {WEIGHTS_HINT}"
        ) from None


def _read_mapping(graph: Graph) -> dict[str, Array]:
    """Nothing is named here: the layers are found by walking from the input."""
    state, layer = {}, graph.first("Parameter")
    for i in range(MAPPING_LAYERS):
        layer = graph.follow(layer, "MatMul")
        state[f"mapping.layers.{i}.weight"] = graph.operand(layer)
        state[f"mapping.layers.{i}.bias"] = graph.operand(graph.follow(layer, "Add"))
    return state


def _read_synthesis(graph: Graph) -> dict[str, Array]:
    """Most constants have their names, after the exporter's ``m.``; folded weights and noise are found by wiring."""
    named = {name[2:]: value for name, value in graph.constants.items() if name.startswith("m.")}
    first_of_conv = {"conv1": "m.input.input"}
    first_of_conv |= {
        name.removesuffix(".conv.weight_dw"): f"m.{name}" for name in named if name.endswith(".conv.weight_dw")
    }
    for conv, first in first_of_conv.items():
        convolution = graph.follow(graph.layer(first), "Convolution")
        named[f"{conv}.conv.weight"] = graph.operand(convolution)
        named[f"{conv}.noise"] = graph.operand(graph.follow(convolution, "Add"))
    return {f"synthesis.{name}": value for name, value in named.items()}


def _load(model: nn.Module, state: dict[str, Array], folder: Path) -> None:
    """Strict: every parameter once, nothing else, and shapes equal but for axes of length 1."""
    targets = {name: value for name, value in model.state_dict().items() if name != "mapping.w_avg"}
    if targets.keys() != state.keys():
        missing, unknown = sorted(targets.keys() - state.keys()), sorted(state.keys() - targets.keys())
        raise ValueError(f"{folder}: expected MobileStyleGAN's weights; missing: {missing}, not known: {unknown}")
    for name, target in targets.items():
        value = torch.tensor(state[name])
        if value.squeeze().shape != target.squeeze().shape:
            raise ValueError(f"{folder}: {name} has shape {list(value.shape)}, expected {list(target.shape)}")
        target.copy_(value.view(target.shape))
