"""StyleGAN2: mapping network, synthesis network and discriminator, with the parameter names of official checkpoints.

Sources: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020 (called SG2 below): weight
demodulation (section 2.2), skip and residual architectures (section 4.1, figure 7), constants (appendix B).
Conditioning and reduced precision: Karras et al., "Training Generative Adversarial Networks with Limited Data",
NeurIPS 2020 (ADA), appendix C. Mapping, truncation, style mixing: Karras et al., "A Style-Based Generator
Architecture for Generative Adversarial Networks", CVPR 2019 (SG1).

Networks compute in the dtype of their parameters. ``dtype=torch.bfloat16`` in a call runs the feature maps of that call
in reduced precision, on any device; styles, images and the end of the discriminator keep the parameters' dtype. On CUDA
the ``num_fp16_res`` highest resolutions run in float16 unless the call says ``force_fp32=True`` or names a dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import setup_filter, upsample2d
from ._layers import MappingNetwork
from ._stylegan2_discriminator import Discriminator, DiscriminatorBlock, DiscriminatorEpilogue, MinibatchStdLayer
from ._stylegan2_layers import (
    RESAMPLE_FILTER,
    SQRT_HALF,
    Conv2dLayer,
    SynthesisLayer,
    ToRGBLayer,
    block_resolutions,
    channels_at,
    check_architecture,
    feature_format,
    fp16_resolution,
)

__all__ = [
    "Conv2dLayer",
    "Discriminator",
    "DiscriminatorBlock",
    "DiscriminatorEpilogue",
    "Generator",
    "MappingNetwork",
    "MinibatchStdLayer",
    "SynthesisBlock",
    "SynthesisLayer",
    "SynthesisNetwork",
    "ToRGBLayer",
    "mix_styles",
]


class SynthesisBlock(nn.Module):
    """The layers of one resolution: conv0 (which doubles the size), conv1, torgb. The first has a constant for conv0.

    Args:
        in_channels: 0 for the first block.
        is_last: whether it draws the image of "orig" and "resnet".
        architecture: "skip" sums the images of all resolutions; "resnet" adds a skip connection around the
            convolutions; "orig" does neither (SG2, figure 7).
        use_fp16: run in float16 on CUDA.
        fp16_channels_last: and then in this memory format.
        fused_modconv_default: accepted for compatibility; has no effect.
        layer_kwargs: further arguments of :class:`SynthesisLayer`.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: Sequence[float] = RESAMPLE_FILTER,
        conv_clamp: float | None = 256,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        fused_modconv_default: Any = True,
        **layer_kwargs: Any,
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        self.in_channels, self.architecture = in_channels, architecture
        self.use_fp16, self.fp16_channels_last = use_fp16, fp16_channels_last
        self.register_buffer("resample_filter", setup_filter(list(resample_filter)))
        shared: dict[str, Any] = {"conv_clamp": conv_clamp, "channels_last": use_fp16 and fp16_channels_last}
        layer = {"resample_filter": resample_filter, **shared, **layer_kwargs}
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **layer)
        if is_last or architecture == "skip":
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, **shared)
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter)
        self.styled = [name for name in ("conv0", "conv1", "torgb") if hasattr(self, name)]
        self.num_torgb = int("torgb" in self.styled)
        self.num_conv = len(self.styled) - self.num_torgb

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: Tensor,
        force_fp32: bool = False,
        fused_modconv: bool | None = None,
        update_emas: bool = False,
        noise_mode: str = "random",
        dtype: torch.dtype | None = None,
        channels_last: bool | None = None,
        styles: Mapping[str, Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Feature maps and image of the next lower resolution, ws [N, num_conv + num_torgb, w_dim], to this one's.

        ``dtype`` and ``channels_last`` are those of the feature maps; ``styles`` replaces the styles of the layers it
        names. ``fused_modconv`` and ``update_emas`` are accepted for compatibility.
        """
        full = self.conv1.weight.dtype
        target = feature_format(
            ws.device, full, self.use_fp16, self.fp16_channels_last, force_fp32, dtype, channels_last
        )
        w = dict(zip(self.styled, ws.unbind(1), strict=True))
        styles = styles or {}
        if self.in_channels == 0:
            x = self.const.expand(len(ws), *self.const.shape)
        assert x is not None
        x = x.to(**target)
        residual = self.skip(x, gain=SQRT_HALF) if hasattr(self, "skip") else None
        if self.in_channels != 0:
            x = self.conv0(x, w["conv0"], noise_mode, styles=styles.get("conv0"))
        gain = 1 if residual is None else SQRT_HALF
        x = self.conv1(x, w["conv1"], noise_mode, gain=gain, styles=styles.get("conv1"))
        x = x if residual is None else residual + x

        if img is not None:
            img = upsample2d(img, self.resample_filter)
        if self.num_torgb:
            y = self.torgb(x, w["torgb"], styles=styles.get("torgb")).to(
                dtype=full, memory_format=torch.contiguous_format
            )
            img = y if img is None else img + y
        return x, img


class SynthesisNetwork(nn.Module):
    """w to an image.

    Args:
        img_resolution: height and width of the image, a power of two from 4.
        channel_base: there are ``min(channel_base / resolution, channel_max)`` feature maps.
        num_fp16_res: so many of the highest resolutions run in float16 on CUDA.
        block_kwargs: further arguments of :class:`SynthesisBlock` and :class:`SynthesisLayer`.

    ``num_ws`` is the number of latents: one for each convolution and one for the last torgb. The torgb of other blocks
    shares that of the next block's first convolution.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions = block_resolutions(img_resolution)
        channels = channels_at(self.block_resolutions, channel_base, channel_max)
        fp16_from = fp16_resolution(img_resolution, num_fp16_res)
        self.num_ws = 1
        for resolution in self.block_resolutions:
            block = SynthesisBlock(
                channels.get(resolution // 2, 0),
                channels[resolution],
                w_dim,
                resolution,
                img_channels,
                is_last=resolution == img_resolution,
                use_fp16=resolution >= fp16_from,
                **block_kwargs,
            )
            setattr(self, f"b{resolution}", block)
            self.num_ws += block.num_conv

    def layers(self) -> dict[str, tuple[SynthesisLayer | ToRGBLayer, int]]:
        """Name of each layer, such as "b8.conv0" or "b8.torgb", to the layer and the index of its latent."""
        result, first = {}, 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            for i, name in enumerate(block.styled):
                result[f"b{resolution}.{name}"] = getattr(block, name), first + i
            first += block.num_conv
        return result

    def styles(self, ws: Tensor) -> dict[str, Tensor]:
        """The StyleSpace coordinates of ``ws`` (Wu et al., "StyleSpace Analysis", CVPR 2021, section 3).

        Returns:
            The name of each layer, in order of execution, to its styles [N, in channels]: the factors of its input
            channels. ``forward(ws, styles=...)`` draws what is changed in them.
        """
        ws = self._per_layer(ws)
        return {name: layer.affine(ws[:, i]) for name, (layer, i) in self.layers().items()}

    def forward(self, ws: Tensor, styles: Mapping[str, Tensor] | None = None, **block_kwargs: Any) -> Tensor:
        """Draw images [N, img_channels, R, R], about in [-1, 1] (not clamped), in the dtype of the parameters.

        Args:
            ws: [N, num_ws, w_dim] (W+), or [N, w_dim] (W: the same for every layer).
            styles: styles [N, in channels] of the layers it names, instead of those from ws: see :meth:`styles`.
            block_kwargs: ``noise_mode`` ("random", "const" or "none"), ``dtype`` and ``channels_last`` of the feature
                maps, ``force_fp32``: see :meth:`SynthesisBlock.forward`.

        Raises:
            ValueError: a shape, a name or a mode does not fit.
            TypeError: dtype is not a floating-point type of the operators.
        """
        ws = self._per_layer(ws)
        styles = {} if styles is None else self._check_styles(styles, len(ws))
        x: Tensor | None = None
        img: Tensor | None = None
        first = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            own = {name: styles.get(f"b{resolution}.{name}") for name in block.styled}
            x, img = block(x, img, ws[:, first : first + len(block.styled)], styles=own, **block_kwargs)
            first += block.num_conv
        assert img is not None
        return img

    def _per_layer(self, ws: Tensor) -> Tensor:
        if tuple(ws.shape[1:]) not in ((self.w_dim,), (self.num_ws, self.w_dim)):
            wanted = f"[N, {self.num_ws}, {self.w_dim}] or [N, {self.w_dim}]"
            raise ValueError(f"ws must have shape {wanted}, got {list(ws.shape)}")
        ws = ws.to(next(self.parameters()).dtype)
        return ws if ws.ndim == 3 else ws[:, None].expand(-1, self.num_ws, -1)

    def _check_styles(self, styles: Mapping[str, Tensor], n: int) -> Mapping[str, Tensor]:
        layers = self.layers()
        for name, value in styles.items():
            if name not in layers:
                raise ValueError(
                    f"styles must name layers such as 'b4.conv1' (see SynthesisNetwork.layers), got {name!r}"
                )
            wanted = [n, layers[name][0].affine.out_features]
            if list(value.shape) != wanted:
                raise ValueError(f"styles[{name!r}] must have shape {wanted}, got {list(value.shape)}")
        return styles


class Generator(nn.Module):
    """``synthesis(mapping(z, c))``.

    Args:
        z_dim, c_dim, w_dim: lengths of the latent, of the condition (0 for none), and of the intermediate latent.
        img_resolution: height and width of the image, a power of two from 4.
        img_channels: its channels.
        mapping_kwargs: further arguments of :class:`MappingNetwork`.
        synthesis_kwargs, more_synthesis_kwargs: further arguments of :class:`SynthesisNetwork`, as a dict or keywords.

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
        synthesis_kwargs: Mapping[str, Any] | None = None,
        **more_synthesis_kwargs: Any,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        options = {**(synthesis_kwargs or {}), **more_synthesis_kwargs}
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **options)
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
        """Draw z [N, z_dim] under c [N, c_dim] as images [N, img_channels, R, R], about in [-1, 1] (not clamped).

        See :meth:`MappingNetwork.forward` for the truncation, :meth:`SynthesisNetwork.forward` for what else there is.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, **synthesis_kwargs)  # type: ignore[no-any-return]


def mix_styles(ws: Tensor, other: Tensor, crossover: int | Tensor) -> Tensor:
    """Style mixing (SG1, section 3.1): the first latents from ``ws``, those from ``crossover`` on from ``other``.

    Args:
        ws, other: [N, num_ws, w_dim].
        crossover: 0 to num_ws, one for all samples or a tensor [N] of integers.

    Raises:
        ValueError: the shapes differ.
    """
    if ws.ndim != 3 or ws.shape != other.shape:
        raise ValueError(f"ws and other must both be [N, num_ws, w_dim], got {list(ws.shape)} and {list(other.shape)}")
    at = torch.as_tensor(crossover, device=ws.device).reshape(-1, 1, 1)
    return torch.where(torch.arange(ws.shape[1], device=ws.device)[None, :, None] < at, ws, other)
