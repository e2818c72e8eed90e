"""Runs classes of a checkout, by themselves or over ganops; a script, since each run needs an interpreter of its own.

    python compat_client.py {make,time,loss,model} CHECKOUT OUT [--ganops]

Nothing of the checkout is changed. What it needs and this Python lacks is stood in for, in both cases.
"""

import argparse
import os
import pickle
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.cpp_extension

IMAGES, RESOLUTION, LATENT, TURNS = 4, 64, 64, 9
WIDTHS = {"channel_base": 2048, "channel_max": 64}
Arrays = dict[str, np.ndarray]


def stand_ins() -> None:
    """pkg_resources, which setuptools has dropped; and no compilation at import, for which there is no CUDA toolkit."""
    from packaging.version import parse

    sys.modules.setdefault("pkg_resources", types.SimpleNamespace(parse_version=parse))  # type: ignore[arg-type]
    torch.utils.cpp_extension.load = lambda *args, **kwargs: None


def randomised(network: Any, seed: int) -> Any:
    """No parameter at its initial zeros or ones, which would hide what they multiply."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.max() == parameter.min():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in network.named_buffers():
            if name.endswith("magnitude_ema"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return network


def gradients(*networks: Any) -> Arrays:
    """None and a gradient of zeros are the same."""
    named = [(f"{type(n).__name__}.{name}", p) for n in networks for name, p in n.named_parameters()]
    found = {name: (torch.zeros_like(p) if p.grad is None else p.grad).numpy().copy() for name, p in named}
    for _, parameter in named:
        parameter.grad = None
    return found


def has(module: str) -> bool:
    return (Path(sys.path[0]) / module).exists()


def make(out: Path) -> None:
    """A checkpoint as the training loop writes one."""
    torch.manual_seed(0)
    if has("training/networks_stylegan3.py"):
        from training.networks_stylegan3 import Generator

        g = Generator(LATENT, 0, LATENT, 2 * RESOLUTION, 3, channel_base=4096, channel_max=64)
    else:
        from training.networks import Generator

        sizes = {"mapping_kwargs": {"num_layers": 2}, "synthesis_kwargs": WIDTHS | {"channel_base": 8192}}
        g = Generator(LATENT, 0, LATENT, 4 * RESOLUTION, 3, **sizes)
    g = randomised(g, 1).eval().requires_grad_(False)
    data = {"G": g, "D": g, "G_ema": g, "augment_pipe": None, "training_set_kwargs": {}}
    out.write_bytes(pickle.dumps(data))


def draw_in_turn(out: Path) -> None:
    """The time of an image, by the network's own operators and over ganops in turn; out is a checkpoint, then times."""
    import ganops.compat

    g, z = pickle.loads(out.read_bytes())["G_ema"], torch.randn(1, LATENT)

    def draw() -> float:
        begin = time.process_time()
        g(z, None)
        return time.process_time() - begin

    draw()
    times: dict[str, list[float]] = {"own": [], "ours": []}
    for _ in range(TURNS):
        times["own"].append(draw())
        ganops.compat.install()
        times["ours"].append(draw())
        ganops.compat.uninstall()
    np.savez(out.with_suffix(".npz"), **{kind: statistics.median(seconds) for kind, seconds in times.items()})


def loss(out: Path) -> None:
    """Each phase of StyleGAN2Loss with its augmentation: adversarial, path length, R1. All in float64."""
    import ganops  # reads the dtypes' names before they change

    assert ganops
    torch.float32 = torch.float64  # type: ignore[misc]  # what the networks convert everything to
    torch.set_default_dtype(torch.float64)
    from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix
    from training import augment
    from training.loss import StyleGAN2Loss

    conv2d_gradfix.enabled = grid_sample_gradfix.enabled = True
    torch.manual_seed(0)
    is_stylegan3 = has("training/networks_stylegan2.py")
    if is_stylegan3:
        from training import networks_stylegan2 as networks

        g = networks.Generator(LATENT, 0, LATENT, RESOLUTION, 3, **WIDTHS)
    else:
        from training import networks

        g = networks.Generator(LATENT, 0, LATENT, RESOLUTION, 3, synthesis_kwargs=WIDTHS)
    g, d = randomised(g, 1).train(), randomised(networks.Discriminator(0, RESOLUTION, 3, **WIDTHS), 2).train()
    kinds = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "brightness", "contrast", "imgfilter")
    options = {"augment_pipe": augment.AugmentPipe(**dict.fromkeys(kinds, 1)), "style_mixing_prob": 0.9}
    if is_stylegan3:
        trainer = StyleGAN2Loss(torch.device("cpu"), g, d, pl_weight=2, pl_no_weight_grad=True, **options)
    else:
        trainer = StyleGAN2Loss(torch.device("cpu"), g.mapping, g.synthesis, d, **options)
    found, seconds = {}, 0.0
    for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
        torch.manual_seed(1)
        g.requires_grad_(phase.startswith("G"))
        d.requires_grad_(phase.startswith("D"))
        images, labels = torch.randn(IMAGES, 3, RESOLUTION, RESOLUTION), torch.zeros(IMAGES, 0)
        last = (1, 0) if is_stylegan3 else (True, 1)  # gain, cur_nimg; sync, gain
        begin = time.process_time()
        trainer.accumulate_gradients(phase, images, labels, torch.randn(IMAGES, LATENT), labels, *last)
        seconds += time.process_time() - begin
        found |= {f"{phase}.{name}": value for name, value in gradients(g, d).items()}
    np.savez(out, seconds=seconds, **found)


def model(out: Path) -> None:
    """rosinality's classes in float64: images, then the gradients of its losses, path length and R1 among them."""
    from model import Discriminator, Generator

    torch.manual_seed(0)
    g = randomised(Generator(RESOLUTION // 2, LATENT, 2, channel_multiplier=1), 1).double()
    d = randomised(Discriminator(RESOLUTION // 2, channel_multiplier=1), 2).double()
    z, noise = torch.randn(IMAGES, LATENT, dtype=torch.float64), [n.double() for n in g.make_noise()]
    begin = time.process_time()
    images, latents = g([z], noise=noise, return_latents=True)
    found = {"images": images.detach().numpy()}
    weights = torch.randn(images.shape, dtype=torch.float64)
    (path,) = torch.autograd.grad((images * weights).sum(), latents, create_graph=True)
    (path.square().sum(2).mean(1).sqrt().square().mean() + torch.nn.functional.softplus(-d(images)).mean()).backward()
    found |= {f"G.{name}": value for name, value in gradients(g, d).items()}
    real = torch.randn(images.shape, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(d(real).sum(), real, create_graph=True)
    slope.square().sum([1, 2, 3]).mean().backward()
    found |= {f"D.{name}": value for name, value in gradients(d).items()}
    np.savez(out, seconds=time.process_time() - begin, **found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["make", "time", "loss", "model"])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ganops", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.task == "loss":  # in float64 under float32's name, which ganops would take for its word
        os.environ["GANOPS_WINOGRAD"] = "0"
    if args.ganops:
        import ganops.compat

        ganops.compat.install()
    else:
        stand_ins()
    sys.path[0] = str(args.checkout)
    {"make": make, "time": draw_in_turn, "loss": loss, "model": model}[args.task](args.out)
