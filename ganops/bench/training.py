"""The parts of a training step: losses and their gradients, without the optimiser."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import ganops

from .jobs import Functions, Job, Settings, native
from .networks import NETWORKS, Z_DIM
from .peers import NvLabs

R1_GAMMA = 10.0
PATH_LENGTH_SHRINK = 2  # path lengths are taken of half the batch, as in StyleGAN2's code
# Our names, and those of the phases in NVlabs' loss.
PARTS = {"G main": "Gmain", "path length": "Greg", "D main": "Dmain", "R1": "Dreg"}


def training_jobs(generator: str, batch: int, settings: Settings) -> list[Job]:
    """The parts of a step of this generator and StyleGAN2's discriminator of the same size."""
    size = NETWORKS[generator].sizes["img_resolution"]
    parts = list(PARTS) if NETWORKS[generator].family == "stylegan2" else ["G main", "D main", "R1"]
    shape = (batch, 3, size, size)
    return [
        Job(f"{generator} {part}", shape, settings.dtype, "step", [], _preparer(generator, part, shape, settings))
        for part in parts
    ]


def _preparer(generator: str, part: str, shape: tuple[int, ...], settings: Settings) -> Callable[[], Functions]:
    def prepare() -> Functions:
        networks = [NETWORKS[generator], NETWORKS[f"sg2-d-{shape[-1]}"]]
        ours = [network.build().train() for network in networks]
        random = torch.Generator().manual_seed(0)
        real, z = (torch.randn(size, generator=random) for size in (shape, (shape[0], Z_DIM)))
        theirs: Functions = {}
        for peer in settings.peers:
            pair = [made.train() for network in networks if (made := peer.network(network))]
            if isinstance(peer, NvLabs) and peer.loss and len(pair) == len(ours):
                for network, other, own in zip(networks, pair, ours, strict=True):
                    peer.share_weights(network, other, own)
                theirs[peer.name] = _nvlabs(peer, PARTS[part], pair[0], pair[1], real, z)
        functions: Functions = {}
        for name in settings.implementations:
            if name in ("reference", native(settings.device)):
                functions[name] = _own(name, part, ours[0], ours[1], real, z)
        return {**functions, **theirs}

    return prepare


def _with_gradients_of(chosen: nn.Module, other: nn.Module) -> None:
    other.requires_grad_(False)
    chosen.requires_grad_(True)
    for parameter in chosen.parameters():
        parameter.grad = None


def _own(
    backend: str, part: str, generator: nn.Module, discriminator: nn.Module, real: Tensor, z: Tensor
) -> Callable[[], Any]:
    losses = importlib.import_module("ganops.models.losses")
    penalty = losses.PathLengthPenalty()

    def generator_main() -> None:
        losses.nonsaturating_generator_loss(discriminator(generator(z, None), None)).backward()

    def path_length() -> None:
        ws = generator.mapping(z[: len(z) // PATH_LENGTH_SHRINK], None)  # type: ignore[operator]
        penalty(generator.synthesis(ws), ws).backward()  # type: ignore[operator]

    def discriminator_main() -> None:  # of one batch after the other, as NVlabs' does: half the activations
        with torch.no_grad():
            fake = generator(z, None)
        losses.logistic_discriminator_loss(None, discriminator(fake, None)).backward()
        losses.logistic_discriminator_loss(discriminator(real, None), None).backward()

    def r1() -> None:
        images = real.clone().requires_grad_()
        losses.r1_penalty(discriminator(images, None), images, R1_GAMMA).backward()

    networks = (generator, discriminator) if part in ("G main", "path length") else (discriminator, generator)
    parts = {"G main": generator_main, "path length": path_length, "D main": discriminator_main, "R1": r1}

    def step() -> None:
        _with_gradients_of(*networks)
        with ganops.backend(backend):
            parts[part]()

    return step


def _nvlabs(
    peer: NvLabs, phase: str, generator: nn.Module, discriminator: nn.Module, real: Tensor, z: Tensor
) -> Callable[[], Any]:
    """Its own loss code on its own networks, with the regularisers that ours have."""
    options: dict[str, Any] = {"r1_gamma": R1_GAMMA, "style_mixing_prob": 0, "pl_weight": 2}
    modules = [generator.mapping, generator.synthesis] if peer.is_older else [generator]
    loss = peer.loss.StyleGAN2Loss("cpu", *modules, discriminator, **options)
    label = real.new_zeros(len(real), 0)
    rest = {"sync": True} if peer.is_older else {"cur_nimg": 0}
    chosen, other = (generator, discriminator) if phase[0] == "G" else (discriminator, generator)

    def step() -> None:
        _with_gradients_of(chosen, other)
        loss.accumulate_gradients(phase=phase, real_img=real, real_c=label, gen_z=z, gen_c=label, gain=1, **rest)

    return step
