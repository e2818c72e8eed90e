"""StyleGAN3's generator, configurations T and R: parameter and buffer names are those of the official checkpoints.

Source: Karras et al., "Alias-Free Generative Adversarial Networks", arXiv 2106.12423 (2021). Every feature map is a
sampled continuous signal of known bandwidth on a grid that extends ``margin_size`` samples beyond the image, and every
nonlinearity is applied at a higher sampling rate, so that moving the input's Fourier features moves the whole image.

    generator = Generator(512, 0, 512, 256, 3)  # T
    generator = Generator(512, 0, 512, 256, 3, **CONFIG_R)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks, filtered_lrelu, modulated_conv2d
from .._backend import without_autocast
from . import _layers
from ._layers import FullyConnectedLayer, rows
from ._stylegan2_layers import NOISE_MODES
from .filters import lowpass, radial_lowpass

CONFIG_R: dict[str, Any] = {
    "channel_base": 65536,
    "channel_max": 1024,
    "conv_kernel": 1,
    "use_radial_filters": True,
}
"""Rotation equivariance (section 3.2): 1x1 convolutions of twice the channels, radially symmetric filters."""


class MappingNetwork(_layers.MappingNetwork):
    """z and c to the intermediate latents w, one for the input and one for each layer: StyleGAN2's, of two layers.

    Args:
        z_dim, c_dim, w_dim: sizes of the latent z, the class label c (0: none) and w.
        num_ws: how often w is repeated.
        num_layers: fully connected layers, after the one that embeds c.
        lr_multiplier: their learning rate relative to the other layers'.
        w_avg_beta: decay of the moving average of w, the centre of truncation.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int = 2,
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.998,
    ) -> None:
        super().__init__(
            z_dim, c_dim, w_dim, num_ws, num_layers=num_layers, lr_multiplier=lr_multiplier, w_avg_beta=w_avg_beta
        )


class SynthesisInput(nn.Module):
    """Fourier features (section 3.1), rotated and translated by w (section 3.2) and by the buffer ``transform``.

    The features are sines of fixed random frequencies, uniform over the disc that ``bandwidth`` allows. Coordinates
    are in image widths, the image being [-1/2, 1/2]^2; the grid goes beyond it. ``transform`` [3, 3] maps homogeneous
    coordinates of the output to those of the features: it is the inverse of what happens to the image.

    Args:
        w_dim: size of w.
        channels: number of features.
        size: samples along an axis.
        sampling_rate: samples in an image width.
        bandwidth: greatest frequency, in cycles per image width.

    Raises:
        ValueError: bandwidth is not within (0, sampling_rate / 2).
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, channels: int, size: int, sampling_rate: float, bandwidth: float) -> None:
        super().__init__()
        self.w_dim, self.channels, self.size = w_dim, channels, size
        self.sampling_rate, self.bandwidth = sampling_rate, bandwidth
        if not 0 < bandwidth < sampling_rate / 2:
            raise ValueError(f"bandwidth must be in (0, sampling_rate / 2 = {sampling_rate / 2}), got {bandwidth}")
        # The radius r of a normal vector is Rayleigh distributed, so that exp(-r^2 / 4) is the square root of a
        # uniform number: such radii fill a disc evenly.
        freqs = torch.randn(channels, 2)
        radii = freqs.norm(dim=1, keepdim=True)
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs / radii * (-radii.square() / 4).exp() * bandwidth)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.weight = nn.Parameter(torch.randn(channels, channels))
        no_motion = torch.tensor([1.0, 0.0, 0.0, 0.0])
        self.affine = FullyConnectedLayer(w_dim, 4, weight_init=0, bias_init=no_motion)

    def forward(self, w: Tensor) -> Tensor:
        """w [N, w_dim] to features [N, channels, size, size] of the parameters' dtype.

        Raises:
            ValueError: ``w`` is not [N, w_dim].
        """
        rows("w", w, self.w_dim)
        # Phases need the full precision of w, also where autocast is on.
        features: Tensor = without_autocast(self._features, w.device, w.to(self.weight.dtype))
        return features

    def _features(self, w: Tensor) -> Tensor:
        motion = self.affine(w)
        cosine, sine, x, y = (motion / motion[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1).view(-1, 3, 3)
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).view(-1, 3, 3)
        transform = rotation @ translation @ self.transform

        # The wave of frequency f at M u + t is one of frequency M^T f at u, its phase ahead by f t.
        phases = self.phases + (self.freqs @ transform[:, :2, 2:])[..., 0]
        freqs = self.freqs @ transform[:, :2, :2]
        # What a transform brings beyond the bandwidth fades before it can alias.
        margin = self.sampling_rate / 2 - self.bandwidth
        amplitudes = (1 - (freqs.norm(dim=2) - self.bandwidth) / margin).clamp(0, 1)

        u = (torch.arange(self.size, dtype=w.dtype, device=w.device) - (self.size - 1) / 2) / self.sampling_rate
        cycles = freqs[:, :, 0, None, None] * u + freqs[:, :, 1, None, None] * u[:, None] + phases[:, :, None, None]
        waves = torch.sin(2 * math.pi * cycles) * amplitudes[:, :, None, None]
        mixed = (self.weight / math.sqrt(self.channels)) @ waves.flatten(2)
        return mixed.view_as(waves)  # type: ignore[no-any-return]


class SynthesisLayer(nn.Module):
    """Modulated convolution, then a leaky ReLU between an up- and a downsampling filter (section 3.2).

    "In" and "out" are the signals before and after the layer; rates, cutoffs and half widths of transition bands are
    in cycles per image width (of the upsampled signal's filter: the input's; of the downsampling one: the output's).

    Args:
        w_dim: size of w.
        is_torgb: the last layer: 1x1 convolution without demodulation, no filters, no nonlinearity.
        is_critically_sampled: the output's cutoff is at half its sampling rate; its filter is never radial.
        use_fp16: compute in float16 on CUDA.
        in_channels, out_channels: channels.
        in_size, out_size: samples along an axis, margins included.
        in_sampling_rate, out_sampling_rate: samples in an image width.
        in_cutoff, out_cutoff: cutoff frequencies.
        in_half_width, out_half_width: half widths of the filters' transition bands.
        conv_kernel: side of the convolution's kernel.
        filter_size: taps of a filter for each sample of the lower rate.
        lrelu_upsampling: the leaky ReLU's sampling rate, relative to the higher one of in and out.
        use_radial_filters: radially symmetric downsampling filters.
        conv_clamp: bound of the magnitude after the leaky ReLU, or None.
        magnitude_ema_beta: decay of ``magnitude_ema``, the moving average of the input's mean square.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        w_dim: int,
        is_torgb: bool,
        is_critically_sampled: bool,
        use_fp16: bool,
        in_channels: int,
        out_channels: int,
        in_size: int,
        out_size: int,
        in_sampling_rate: int,
        out_sampling_rate: int,
        in_cutoff: float,
        out_cutoff: float,
        in_half_width: float,
        out_half_width: float,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
        magnitude_ema_beta: float = 0.999,
    ) -> None:
        super().__init__()
        self.w_dim, self.is_torgb, self.use_fp16 = w_dim, is_torgb, use_fp16
        self.in_channels, self.out_channels = in_channels, out_channels
        self.in_size, self.out_size = in_size, out_size
        self.in_sampling_rate, self.out_sampling_rate = in_sampling_rate, out_sampling_rate
        self.conv_kernel = 1 if is_torgb else _checks.integer("conv_kernel", conv_kernel, 1)
        self.conv_clamp, self.magnitude_ema_beta = conv_clamp, magnitude_ema_beta
        filter_size = _checks.integer("filter_size", filter_size, 1)
        lrelu_upsampling = _checks.integer("lrelu_upsampling", lrelu_upsampling, 1)

        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, self.conv_kernel, self.conv_kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("magnitude_ema", torch.ones(()))

        rate = max(in_sampling_rate, out_sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.up_factor, self.down_factor = rate // in_sampling_rate, rate // out_sampling_rate
        up_taps, down_taps = (
            1 if is_torgb or factor == 1 else filter_size * factor for factor in (self.up_factor, self.down_factor)
        )
        up_filter = down_filter = None
        if up_taps > 1:
            up_filter = lowpass(up_taps, in_cutoff, in_half_width * 2, rate).float()
        if down_taps > 1:
            design = radial_lowpass if use_radial_filters and not is_critically_sampled else lowpass
            down_filter = design(down_taps, out_cutoff, out_half_width * 2, rate).float()
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)

        # What the filters and the convolution, padded by kernel - 1, take and give, so that out_size samples remain.
        padding = (
            (out_size - 1) * self.down_factor
            + 1
            - (in_size + self.conv_kernel - 1) * self.up_factor
            + up_taps
            + down_taps
            - 2
        )
        before = (padding + self.up_factor) // 2
        self.padding = [before, padding - before] * 2

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise_mode: str = "random",
        force_fp32: bool = False,
        update_emas: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """x [N, in_channels, in_size, in_size] and w [N, w_dim] to [N, out_channels, out_size, out_size].

        Args:
            x, w: features and latents.
            noise_mode: accepted for StyleGAN2's sake: this network has no noise.
            force_fp32: ignore ``use_fp16``.
            update_emas: move ``magnitude_ema`` towards the mean square of x.
            dtype: that of the computation and of the result, as in :meth:`SynthesisNetwork.forward`.

        Raises:
            TypeError, ValueError: a bad argument; the text names it.
        """
        _checks.image("x", x)
        if x.shape[1:] != (self.in_channels, self.in_size, self.in_size):
            wanted = f"[N, {self.in_channels}, {self.in_size}, {self.in_size}]"
            raise ValueError(f"x must be {wanted}, got {list(x.shape)}")
        rows("w", w, self.w_dim)
        _check_noise_mode(noise_mode)
        if update_emas:
            magnitude = x.detach().to(self.magnitude_ema.dtype).square().mean()
            self.magnitude_ema.copy_(magnitude.lerp(self.magnitude_ema, self.magnitude_ema_beta))
        if dtype is None:
            half = self.use_fp16 and not force_fp32 and x.device.type == "cuda"
            dtype = torch.float16 if half else self.weight.dtype

        styles = self.affine(w)
        if self.is_torgb:
            styles = styles / math.sqrt(self.weight[0].numel())
        x = modulated_conv2d(
            x.to(dtype),
            self.weight,
            styles,
            demodulate=not self.is_torgb,
            prenormalize="rms",
            padding=self.conv_kernel - 1,
            input_gain=self.magnitude_ema.rsqrt(),
        )
        return filtered_lrelu(
            x,
            self.up_filter,
            self.down_filter,
            self.bias.to(x.dtype),
            up=self.up_factor,
            down=self.down_factor,
            padding=self.padding,
            gain=1 if self.is_torgb else math.sqrt(2),
            slope=1 if self.is_torgb else 0.2,
            clamp=self.conv_clamp,
        )


class SynthesisNetwork(nn.Module):
    """Fourier features, then ``num_layers`` layers and the one that gives the image, ``L{i}_{size}_{channels}``.

    Cutoffs and stop bands grow geometrically from layer to layer, and stay in the last ``num_critical`` ones
    ("flexible layer specifications", section 3.2).

    Args:
        w_dim: size of w.
        img_resolution: pixels along an axis of the image.
        img_channels: its channels.
        channel_base: a layer of cutoff f has ``channel_base / 2 / f`` channels,
        channel_max: but at most so many.
        num_layers: layers before the one that gives the image.
        num_critical: how many of the last ones keep the image's cutoff, half its sampling rate.
        first_cutoff: the input's cutoff, in cycles per image width.
        first_stopband: where the first filter's transition band ends.
        last_stopband_rel: the same of the last filter, relative to its cutoff.
        margin_size: samples beyond each edge of the image.
        output_scale: factor of the image.
        num_fp16_res: layers whose sampling rate times 2**num_fp16_res exceeds img_resolution use float16 on CUDA.
        layer_kwargs: of every :class:`SynthesisLayer`.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        num_fp16_res: int = 4,
        **layer_kwargs: Any,
    ) -> None:
        super().__init__()
        self.w_dim = _checks.integer("w_dim", w_dim, 1)
        self.img_resolution = _checks.integer("img_resolution", img_resolution, 1)
        self.img_channels = _checks.integer("img_channels", img_channels, 1)
        self.num_layers = _checks.integer("num_layers", num_layers, 1)
        self.num_ws = num_layers + 2
        self.num_critical = _checks.integer("num_critical", num_critical, 0)
        if num_critical >= num_layers:
            raise ValueError(f"num_critical must be less than num_layers {num_layers}, got {num_critical}")
        self.margin_size = _checks.integer("margin_size", margin_size, 0)
        self.output_scale = _checks.number("output_scale", output_scale)
        self.num_fp16_res = _checks.integer("num_fp16_res", num_fp16_res, 0)

        for name, value in (
            ("first_cutoff", first_cutoff),
            ("first_stopband", first_stopband),
            ("last_stopband_rel", last_stopband_rel),
        ):
            if _checks.number(name, value) <= 0:
                raise ValueError(f"{name} must be positive, got {value}")

        last_cutoff = img_resolution / 2
        last_stopband = last_cutoff * last_stopband_rel
        exponents = [min(i / (num_layers - num_critical), 1) for i in range(num_layers + 1)]
        cutoffs = [first_cutoff * (last_cutoff / first_cutoff) ** e for e in exponents]
        stopbands = [first_stopband * (last_stopband / first_stopband) ** e for e in exponents]
        rates = [2 ** math.ceil(math.log2(min(2 * stopband, img_resolution))) for stopband in stopbands]
        half_widths = [max(stop, rate / 2) - cut for stop, rate, cut in zip(stopbands, rates, cutoffs, strict=True)]
        sizes = [rate + 2 * margin_size for rate in rates]
        sizes[-2:] = [img_resolution] * 2
        channels = [round(min(channel_base / 2 / cutoff, channel_max)) for cutoff in cutoffs]
        channels[-1] = img_channels
        if min(channels) < 1:
            raise ValueError(f"channel_base {channel_base} and channel_max {channel_max} leave a layer no channels")

        self.input = SynthesisInput(w_dim, channels[0], sizes[0], rates[0], cutoffs[0])
        self.layer_names = []
        for i in range(num_layers + 1):
            before = max(i - 1, 0)
            layer = SynthesisLayer(
                w_dim,
                is_torgb=i == num_layers,
                is_critically_sampled=i >= num_layers - num_critical,
                use_fp16=rates[i] * 2**num_fp16_res > img_resolution,
                in_channels=channels[before],
                out_channels=channels[i],
                in_size=sizes[before],
                out_size=sizes[i],
                in_sampling_rate=rates[before],
                out_sampling_rate=rates[i],
                in_cutoff=cutoffs[before],
                out_cutoff=cutoffs[i],
                in_half_width=half_widths[before],
                out_half_width=half_widths[i],
                **layer_kwargs,
            )
            self.layer_names.append(f"L{i}_{sizes[i]}_{channels[i]}")
            setattr(self, self.layer_names[-1], layer)

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "random",
        force_fp32: bool = False,
        update_emas: bool = False,
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> Tensor:
        """Draw ws [N, num_ws, w_dim] as images [N, img_channels, img_resolution, img_resolution], about -1 to 1.

        Args:
            ws: one w for the input and one for each layer.
            noise_mode: "random", "const" or "none", accepted for StyleGAN2's sake: this network has no noise.
            force_fp32: compute in the parameters' dtype on CUDA, too.
            update_emas: move every layer's ``magnitude_ema`` towards its input's mean square.
            dtype: compute all layers in this type, on any device. Default: float16 on CUDA in the layers that
                ``num_fp16_res`` names, the parameters' dtype elsewhere. Images have the parameters' dtype.
            channels_last: the memory format of feature maps and images.

        Raises:
            TypeError, ValueError: a bad argument; the text names it.
        """
        _checks.tensor("ws", ws)
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must be [N, {self.num_ws}, {self.w_dim}], got {list(ws.shape)}")
        if dtype is not None and dtype not in _checks.DTYPES:
            raise TypeError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype}")
        first, *rest = ws.to(self.input.weight.dtype).unbind(1)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        x = self.input(first).contiguous(memory_format=memory_format)
        for name, w in zip(self.layer_names, rest, strict=True):
            x = getattr(self, name)(x, w, noise_mode, force_fp32, update_emas, dtype)
        return x.to(first.dtype) * self.output_scale  # type: ignore[no-any-return]


class Generator(nn.Module):
    """Mapping and synthesis network.

    Args:
        z_dim, c_dim, w_dim: sizes of the latent z, the class label c (0: none) and the intermediate latent w.
        img_resolution, img_channels: of the images.
        mapping_kwargs: of :class:`MappingNetwork`.
        synthesis_kwargs: of :class:`SynthesisNetwork`; configuration T is the default, R is ``**CONFIG_R``.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: Mapping[str, Any] | None = None,
        **synthesis_kwargs: Any,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        **synthesis_kwargs: Any,
    ) -> Tensor:
        """Images [N, img_channels, img_resolution, img_resolution], about -1 to 1, of z [N, z_dim] and c [N, c_dim].

        Args:
            z, c, truncation_psi, truncation_cutoff: as in :meth:`MappingNetwork.forward`.
            update_emas: of both networks.
            synthesis_kwargs: of :meth:`SynthesisNetwork.forward`: noise_mode, force_fp32, dtype, channels_last.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)  # type: ignore[no-any-return]


def _check_noise_mode(noise_mode: str) -> None:
    if noise_mode not in NOISE_MODES:
        raise ValueError(f"noise_mode must be one of {', '.join(NOISE_MODES)}, got {noise_mode!r}")
