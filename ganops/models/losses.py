"""Losses and regularisers of the StyleGAN family, as functions of scores, images and latents.

Scores ("logits") are what a discriminator returns: large where an image looks real. Every loss is a scalar, the mean
over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def nonsaturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """``-log sigmoid(D(G(z)))``. Source: Goodfellow et al., "Generative Adversarial Networks" (2014), section 3."""
    return F.softplus(-fake_logits).mean()


def logistic_discriminator_loss(real_logits: Tensor | None, fake_logits: Tensor | None) -> Tensor:
    """``-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z))))``. Source: as above, equation 1.

    None leaves out that part. Backward passes of one part and then of the other keep the activations of one batch.
    """
    return _sum_of_means(F.softplus, None if real_logits is None else -real_logits, fake_logits)


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """``-D(G(z))``. Source: Lim and Ye, "Geometric GAN" (2017), section 3."""
    return -fake_logits.mean()


def hinge_discriminator_loss(real_logits: Tensor | None, fake_logits: Tensor | None) -> Tensor:
    """``max(0, 1 - D(x)) + max(0, 1 + D(G(z)))``. Source: as above. None leaves out that part."""
    return _sum_of_means(lambda x: F.relu(1 + x), None if real_logits is None else -real_logits, fake_logits)


def _sum_of_means(loss: Callable[[Tensor], Tensor], *logits: Tensor | None) -> Tensor:
    means = [loss(x).mean() for x in logits if x is not None]
    if not means:
        raise ValueError("real_logits and fake_logits are both None: one is needed")
    return sum(means[1:], means[0])


def r1_penalty(real_logits: Tensor, real_images: Tensor, gamma: float) -> Tensor:
    """``gamma/2 |grad_x D(x)|^2`` at real images.

    Args:
        real_logits: scores of ``real_images``; a sample's score may depend on the others of its batch.
        real_images: [N, ...], required to have a gradient before the scores were computed.
        gamma: weight.

    Returns:
        The mean over N, differentiable in the discriminator's parameters.

    Raises:
        ValueError: the images do not require a gradient.

    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?" (2018), equation 9.
    """
    return gamma / 2 * _squared_gradient("real_images", real_logits, real_images).mean()


def r2_penalty(fake_logits: Tensor, fake_images: Tensor, gamma: float) -> Tensor:
    """``gamma/2 |grad_x D(x)|^2`` at generated images: as :func:`r1_penalty`. Source: as there, equation 10."""
    return gamma / 2 * _squared_gradient("fake_images", fake_logits, fake_images).mean()


class PathLengthPenalty(nn.Module):
    """Path length regularisation: ``weight (|J_w^T y| - a)^2``, J_w the generator's Jacobian and y a random image.

    ``mean`` (a scalar buffer, so that checkpoints hold it) is a: the moving average of the lengths |J_w^T y|, this
    batch's included; the gradient flows through it, too. Where torch.distributed runs, the batch is that of all
    processes, each of equal size.

    Args:
        weight: factor of the penalty.
        decay: how far ``mean`` moves towards the mean of each batch.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), section 3.2, equation 4,
    and appendix B.
    """

    mean: Tensor

    def __init__(self, weight: float = 2, decay: float = 0.01) -> None:
        super().__init__()
        self.weight, self.decay = weight, decay
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """The penalty of images [N, C, H, W] that were drawn from ws, [N, num_ws, w_dim] or [N, w_dim].

        ``noise`` [N, C, H, W], unit normal, stands in for y sqrt(H W); by default it is drawn. Of several latents the
        mean square counts. Moves ``mean``.

        Raises:
            ValueError: ws does not require a gradient.
        """
        lengths = path_lengths(images, ws, noise)
        mean = self.mean.lerp(_mean_of_processes(lengths.mean()).to(self.mean.dtype), self.decay)
        self.mean.copy_(mean.detach())
        return self.weight * (lengths - mean).square().mean()


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor | None = None) -> Tensor:
    """The lengths [N] of ``J_w^T y``: see :class:`PathLengthPenalty`, also for the arguments."""
    y = (torch.randn_like(images) if noise is None else noise) / math.sqrt(images.shape[2] * images.shape[3])
    gradient = _gradient("ws", (images * y).sum(), ws)
    return gradient.square().sum(dim=-1).reshape(len(ws), -1).mean(dim=1).sqrt()


def lazy_adam(lr: float, betas: tuple[float, float], interval: int) -> dict[str, float | tuple[float, float]]:
    """Adam's settings where a regulariser runs in every ``interval``-th step alone, its loss times ``interval``.

    Such a step counts as one more than the others, so the optimiser takes ``interval + 1`` steps for ``interval``:
    with ``c = interval / (interval + 1)`` the learning rate becomes ``c lr`` and each beta ``beta ** c``.

    Returns:
        ``{"lr": ..., "betas": ...}``, for ``torch.optim.Adam(parameters, **settings)``.

    Raises:
        ValueError: interval is less than 1.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), appendix B.
    """
    if interval < 1:
        raise ValueError(f"interval must be at least 1, got {interval}")
    c = interval / (interval + 1)
    return {"lr": c * lr, "betas": (betas[0] ** c, betas[1] ** c)}


def _mean_of_processes(value: Tensor) -> Tensor:
    """Differentiable: each process gets its share of every other one's gradient."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    import torch.distributed.nn.functional

    total: Tensor = torch.distributed.nn.functional.all_reduce(value)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()


def _squared_gradient(name: str, logits: Tensor, images: Tensor) -> Tensor:
    return _gradient(name, logits.sum(), images).square().flatten(1).sum(dim=1)


def _gradient(name: str, value: Tensor, at: Tensor) -> Tensor:
    if not at.requires_grad:
        raise ValueError(f"{name} must require a gradient before the network is applied: {name}.requires_grad_()")
    (gradient,) = torch.autograd.grad(value, at, create_graph=True)
    return gradient
