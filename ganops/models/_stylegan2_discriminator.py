"""The discriminator of StyleGAN2: see stylegan2.py for the sources."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks, downsample2d, setup_filter
from ._layers import FullyConnectedLayer, MappingNetwork
from ._stylegan2_layers import (
    RESAMPLE_FILTER,
    SQRT_HALF,
    Conv2dLayer,
    block_resolutions,
    channels_at,
    check_architecture,
    feature_format,
    fp16_resolution,
)

MBSTD_EPSILON = 1e-8


class DiscriminatorBlock(nn.Module):
    """The layers of one resolution: fromrgb, conv0, conv1 (which halves the size), skip.

    Args:
        in_channels: 0 for the first block, which begins with the image.
        tmp_channels: feature maps after fromrgb and conv0.
        first_layer_idx: the number of layers before this block.
        architecture: "skip" adds the downsampled image at each resolution; "resnet" adds a skip connection around the
            convolutions; "orig" does neither (SG2, figure 7).
        use_fp16: run in float16 on CUDA.
        fp16_channels_last: and then in this memory format.
        freeze_layers: the discriminator's first layers, so many, are not trained (Mo et al., "Freeze the
            Discriminator", 2020).
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int,
        architecture: str = "resnet",
        activation: str = "lrelu",
        resample_filter: Sequence[float] = RESAMPLE_FILTER,
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        freeze_layers: int = 0,
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        self.in_channels, self.architecture = in_channels, architecture
        self.use_fp16, self.fp16_channels_last = use_fp16, fp16_channels_last
        self.register_buffer("resample_filter", setup_filter(list(resample_filter)))
        self.num_layers = 0

        def layer(in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> Conv2dLayer:
            trainable = first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            return Conv2dLayer(
                in_channels,
                out_channels,
                kernel_size,
                resample_filter=resample_filter,
                channels_last=use_fp16 and fp16_channels_last,
                trainable=trainable,
                **options,
            )

        activated = {"activation": activation, "conv_clamp": conv_clamp}
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = layer(img_channels, tmp_channels, 1, **activated)
        self.conv0 = layer(tmp_channels, tmp_channels, 3, **activated)
        self.conv1 = layer(tmp_channels, out_channels, 3, down=2, **activated)
        if architecture == "resnet":
            self.skip = layer(tmp_channels, out_channels, 1, bias=False, down=2)

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        force_fp32: bool = False,
        dtype: torch.dtype | None = None,
        channels_last: bool | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Feature maps and image of one resolution to those of the next lower one.

        The image is passed on in "skip" alone. ``dtype`` and ``channels_last`` are those of the feature maps.
        """
        given = img if x is None else x
        assert given is not None
        target = feature_format(
            given.device,
            self.conv0.weight.dtype,
            self.use_fp16,
            self.fp16_channels_last,
            force_fp32,
            dtype,
            channels_last,
        )
        if x is not None:
            x = x.to(**target)
        if hasattr(self, "fromrgb"):
            assert img is not None
            img = img.to(**target)
            y = self.fromrgb(img)
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            return self.skip(x, gain=SQRT_HALF) + self.conv1(self.conv0(x), gain=SQRT_HALF), img
        return self.conv1(self.conv0(x)), img


class MinibatchStdLayer(nn.Module):
    """Append feature maps that hold the standard deviation over groups of the batch.

    Sample n is in group ``n % (N / group_size)``; the deviation of each value over its group is averaged over height,
    width, and C / num_channels channels (Karras et al., "Progressive Growing of GANs" (2018), section 3).

    Args:
        group_size: samples in a group; None for the whole batch. A smaller batch is one group.
        num_channels: feature maps that are appended.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = None if group_size is None else _checks.integer("group_size", group_size, 1)
        self.num_channels = _checks.integer("num_channels", num_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C + num_channels, H, W].

        Raises:
            ValueError: N is not a multiple of the group size, or C not one of num_channels.
        """
        n, c, h, w = x.shape
        group = n if self.group_size is None else min(self.group_size, n)
        if n % max(group, 1) or c % self.num_channels:
            wanted = f"x must have a multiple of {group} samples and of {self.num_channels} channels"
            raise ValueError(f"{wanted}, got {list(x.shape)}")
        y = x.reshape(group, -1, self.num_channels, c // self.num_channels, h, w)
        deviation = (y.var(dim=0, correction=0) + MBSTD_EPSILON).sqrt().mean(dim=[2, 3, 4])
        return torch.cat([x, deviation[:, :, None, None].repeat(group, 1, h, w)], dim=1)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"


class DiscriminatorEpilogue(nn.Module):
    """Feature maps of the lowest resolution to the score: minibatch standard deviation, convolution, two dense layers.

    With a condition the score is the inner product with the embedded condition, over sqrt(cmap_dim) (Miyato and Koyama,
    "cGANs with Projection Discriminator", 2018). It computes in the dtype of its parameters.

    Args:
        cmap_dim: length of the embedded condition; 0 for none.
        mbstd_group_size, mbstd_num_channels: see :class:`MinibatchStdLayer`; 0 channels for none.
    """

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        self.cmap_dim = cmap_dim
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels, in_channels, 3, activation=activation, conv_clamp=conv_clamp
        )
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, cmap_dim or 1)

    def forward(self, x: Tensor | None, img: Tensor | None, cmap: Tensor | None, force_fp32: bool = False) -> Tensor:
        """x [N, in_channels, R, R] (and in "skip" an image, which may be all there is) to scores [N, 1].

        ``force_fp32`` is accepted for compatibility; has no effect.
        """
        full: dict[str, Any] = {"dtype": self.conv.weight.dtype, "memory_format": torch.contiguous_format}
        if x is not None:
            x = x.to(**full)
        if hasattr(self, "fromrgb"):
            assert img is not None
            y = self.fromrgb(img.to(**full))
            x = y if x is None else x + y
        assert x is not None
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if cmap is not None:
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


class Discriminator(nn.Module):
    """An image and a condition to a score: large where the image looks real.

    Args:
        c_dim: length of the condition; 0 for none.
        img_resolution: height and width of the image, a power of two from 4.
        img_channels: its channels.
        architecture: "orig", "skip" or "resnet": see :class:`DiscriminatorBlock`.
        channel_base: there are ``min(channel_base / resolution, channel_max)`` feature maps.
        num_fp16_res: so many of the highest resolutions run in float16 on CUDA.
        conv_clamp: bound of the layers' output; None for none.
        cmap_dim: length of the embedded condition. Default: the feature maps at 4x4.
        block_kwargs: further arguments of :class:`DiscriminatorBlock`.
        mapping_kwargs: of the :class:`MappingNetwork` for the condition.
        epilogue_kwargs: of :class:`DiscriminatorEpilogue`.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        conv_clamp: float | None = 256,
        cmap_dim: int | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        lowest, *upper = block_resolutions(img_resolution)
        self.block_resolutions = upper[::-1]
        channels = channels_at([lowest, *upper], channel_base, channel_max)
        cmap_dim = 0 if c_dim == 0 else channels[lowest] if cmap_dim is None else cmap_dim
        fp16_from = fp16_resolution(img_resolution, num_fp16_res)
        shared: dict[str, Any] = {"img_channels": img_channels, "conv_clamp": conv_clamp}
        first_layer = 0
        for resolution in self.block_resolutions:
            block = DiscriminatorBlock(
                channels[resolution] if resolution < img_resolution else 0,
                channels[resolution],
                channels[resolution // 2],
                resolution,
                first_layer_idx=first_layer,
                architecture=architecture,
                use_fp16=resolution >= fp16_from,
                **shared,
                **(block_kwargs or {}),
            )
            setattr(self, f"b{resolution}", block)
            first_layer += block.num_layers
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, None, w_avg_beta=None, **(mapping_kwargs or {}))
        # Without a block before it the epilogue reads the image itself, as it does in "skip".
        self.b4 = DiscriminatorEpilogue(
            channels[lowest],
            cmap_dim,
            lowest,
            architecture=architecture if upper else "skip",
            **shared,
            **(epilogue_kwargs or {}),
        )

    def forward(self, img: Tensor, c: Tensor | None = None, update_emas: bool = False, **block_kwargs: Any) -> Tensor:
        """Scores [N, 1] of images [N, img_channels, R, R] under c [N, c_dim], in the dtype of the parameters.

        Args:
            update_emas: accepted for compatibility; there is nothing to update.
            block_kwargs: ``dtype`` and ``channels_last`` of the feature maps, ``force_fp32``.

        Raises:
            ValueError: a shape does not fit.
        """
        wanted = (self.img_channels, self.img_resolution, self.img_resolution)
        if img.ndim != 4 or img.shape[1:] != wanted:
            raise ValueError(f"img must be [N, {', '.join(map(str, wanted))}], got {list(img.shape)}")
        cmap = None
        if self.c_dim > 0:
            cmap = self.mapping(None, c)
            if len(cmap) != len(img):
                raise ValueError(f"c must have as many rows as img has samples, got {len(cmap)} and {len(img)}")
        x, rest = None, img
        for resolution in self.block_resolutions:
            x, rest = getattr(self, f"b{resolution}")(x, rest, **block_kwargs)
        return self.b4(x, rest, cmap)  # type: ignore[no-any-return]
