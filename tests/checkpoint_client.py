"""Run with a checkout of another codebase on PYTHONPATH: makes a checkpoint of tiny networks by its own classes.

``checkpoint_client.py make KIND FILE OUTPUTS`` writes the checkpoint, and what its networks compute;
``checkpoint_client.py legacy FILE OUTPUTS`` loads FILE by NVIDIA's loader and computes the same; ``trusted`` does so by
ganops's trusted mode. What their modules import and never call here need not be installed.
"""

import argparse
import copy
import importlib
import pickle
import sys
import types
from typing import Any

import packaging.version
import torch
import torch.utils.cpp_extension

SIZES = {"z_dim": 16, "c_dim": 3, "w_dim": 16, "img_resolution": 32, "img_channels": 3}
CHANNELS = {"channel_base": 256, "channel_max": 16}
KINDS = {
    "ada": (
        "training.networks",
        "training.networks",
        {"synthesis_kwargs": CHANNELS, "mapping_kwargs": {"num_layers": 3}},
    ),
    "stylegan2": ("training.networks_stylegan2", "training.networks_stylegan2", CHANNELS),
    "stylegan3-t": ("training.networks_stylegan3", "training.networks_stylegan2", CHANNELS),
    "stylegan3-r": (
        "training.networks_stylegan3",
        "training.networks_stylegan2",
        {**CHANNELS, "conv_kernel": 1, "use_radial_filters": True},
    ),
}


def perturb(module: torch.nn.Module, seed: int) -> None:
    """Moves every parameter, and the moving averages, away from where they begin."""
    generator = torch.Generator().manual_seed(seed)
    buffers = [b for name, b in module.named_buffers() if name.endswith(("avg", "ema"))]
    for tensor in [*module.parameters(), *buffers]:
        tensor.data += 0.1 * torch.rand(tensor.shape, generator=generator)


def compute(networks: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Images and scores: with truncation, class labels and the noise of the checkpoint."""
    z, c = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), torch.eye(3)[:2]
    outputs = {"z": z, "c": c}
    with torch.no_grad():
        for name in ("G", "G_ema"):
            outputs[name] = networks[name](z, c, truncation_psi=0.7, truncation_cutoff=4, noise_mode="const")
        if "D" in networks and not isinstance(networks["D"], torch.nn.Identity):
            outputs["D"] = networks["D"](outputs["G"], c)
    return outputs


def make(kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    import dnnlib
    from training.augment import AugmentPipe

    generators, discriminators, options = KINDS[kind]
    generator = importlib.import_module(generators).Generator(**SIZES, **options)
    sizes = {name: SIZES[name] for name in ("c_dim", "img_resolution", "img_channels")}
    discriminator = importlib.import_module(discriminators).Discriminator(**sizes, **CHANNELS)
    for seed, module in enumerate((generator, discriminator)):
        perturb(module, seed)
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    perturb(average, 2)
    content = {
        "G": generator,
        "D": discriminator,
        "G_ema": average,
        "augment_pipe": AugmentPipe(xflip=1, rotate=1),
        "training_set_kwargs": dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", path="images.zip"),
    }
    return content, compute(content)


def make_rosinality() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    torch.utils.cpp_extension.load = lambda *args, **kwargs: None  # a CPU takes their plain path
    model = importlib.import_module("model")
    generator, discriminator = model.Generator(16, 32, 3), model.Discriminator(16)
    for seed, module in enumerate((generator, discriminator)):
        perturb(module, seed)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        center = generator.mean_latent(64)[0]
        image, _ = generator([z], truncation=0.7, truncation_latent=center, randomize_noise=False)
        outputs = {"z": z, "g": image, "d": discriminator(image)}
    content = {
        "g": generator.state_dict(),
        "d": discriminator.state_dict(),
        "g_ema": generator.state_dict(),
        "d_optim": torch.optim.Adam(discriminator.parameters()).state_dict(),
        "args": argparse.Namespace(size=16),
        "latent_avg": center,
    }
    return content, outputs


def main(command: str, *args: str) -> None:
    stand_ins = {name: types.ModuleType(name) for name in ("requests", "pkg_resources", "lmdb")}
    stand_ins["pkg_resources"].parse_version = packaging.version.parse
    sys.modules.update(stand_ins)
    torch.manual_seed(0)
    if command == "make":
        kind, file, outputs = args
        if kind == "rosinality":
            content, computed = make_rosinality()
            torch.save(content, file)
        else:
            content, computed = make(kind)
            with open(file, "wb") as target:
                pickle.dump(content, target)
    else:
        file, outputs = args
        with open(file, "rb") as source:
            if command == "legacy":
                content = importlib.import_module("legacy").load_network_pkl(source)
            else:
                content = importlib.import_module("ganops.compat").load_network_pkl(
                    source, execute_embedded_source=True
                )
                assert not type(content["G"]).__mro__[1].__module__.startswith("ganops")
        computed = compute(content)
    torch.save(computed, outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
