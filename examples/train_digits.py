"""Trains a small conditional StyleGAN2 on scikit-learn's handwritten digits (1797 images, drawn here at 32x32).

python examples/train_digits.py --out run                                  one process
torchrun --nproc-per-node 2 examples/train_digits.py --out run             two, with DistributedDataParallel
python examples/train_digits.py --out run --steps 3000                     goes on where the folder's checkpoint ends

The folder gets samples.png (a row for each digit), loss.png, log.csv and the checkpoint. The Frechet distance compares
means and covariances of images shrunk to 8x8 pixels: a yardstick for this run, not comparable with an FID.
Needs: pip install 'ganops[train]'
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ganops
from ganops.models import losses, stylegan2

CLASSES, PIXELS, Z_DIM = 10, 32, 64
R1_GAMMA, R1_INTERVAL, PATH_INTERVAL = 0.5, 16, 4
LEARNING_RATE, BETAS, EMA_DECAY = 0.0025, (0.0, 0.99), 0.995
FEATURE_PIXELS, EVALUATION_SAMPLES = 8, 2000
COLUMNS = ("step", "generator_loss", "discriminator_loss", "r1", "path_length", "frechet_distance")


class Generator(nn.Module):
    """StyleGAN2's generator, which returns the latents w beside the images: path length regularisation needs both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = stylegan2.Generator(
            Z_DIM, CLASSES, Z_DIM, PIXELS, 1, {"num_layers": 2}, channel_base=channels * 16, channel_max=channels
        )

    def forward(self, z: Tensor, c: Tensor, noise_mode: str = "random") -> tuple[Tensor, Tensor]:
        ws = self.net.mapping(z, c, update_emas=self.training)
        return self.net.synthesis(ws, noise_mode=noise_mode), ws


def load_digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 32, 32] in [-1, 1] and one-hot labels [1797, 10]."""
    import sklearn.datasets

    data = sklearn.datasets.load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    f = ganops.setup_filter([1, 3, 3, 1])
    for _ in range(2):  # borders are those of the paper: background
        images = ganops.upsample2d(images + 1, f) - 1
    return images, F.one_hot(torch.from_numpy(data.target), CLASSES).float()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Between normal distributions fitted to features a and b, [N, F] (Dowson and Landau 1982)."""
    a, b = a.double(), b.double()
    trace = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum() - 2 * trace)


def features(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, FEATURE_PIXELS).flatten(1)


class Trainer:
    """The networks, what trains them, and one step of it.

    Everything random in a step follows from the seed and the step's number, for the batch of all processes together, of
    which each takes its share. So a run may stop and go on, or be spread over processes, and stays the same.
    """

    def __init__(self, args: argparse.Namespace, rank: int, world: int) -> None:
        self.args, self.rank, self.world = args, rank, world
        torch.manual_seed(args.seed)
        self.generator = Generator(args.channels).to(args.device)
        self.discriminator = stylegan2.Discriminator(
            CLASSES, PIXELS, 1, channel_base=args.channels * 16, channel_max=args.channels
        ).to(args.device)
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
        self.path_length = losses.PathLengthPenalty().to(args.device)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), **losses.lazy_adam(LEARNING_RATE, BETAS, PATH_INTERVAL)
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), **losses.lazy_adam(LEARNING_RATE, BETAS, R1_INTERVAL)
        )
        parallel: Callable[[nn.Module], nn.Module] = DistributedDataParallel if world > 1 else lambda module: module
        self.parallel_generator, self.parallel_discriminator = parallel(self.generator), parallel(self.discriminator)
        self.images, self.labels = (t.to(args.device) for t in load_digits())
        self.step = 0

    def share(self, t: Tensor) -> Tensor:
        """This process's part of a batch: every world-th sample, as minibatch standard deviation groups them."""
        return t[self.rank :: self.world].to(self.args.device)

    def draw(self, phase: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents and their labels, real images and theirs."""
        generator = torch.Generator().manual_seed(hash((self.args.seed, self.step, phase)) % 2**63)
        torch.manual_seed(hash((self.args.seed, self.step, phase, self.rank)) % 2**63)  # the layers' noise
        z = torch.randn(self.args.batch, Z_DIM, generator=generator)
        which = torch.randint(len(self.images), (2, self.args.batch), generator=generator)
        real, labels = self.images[which[0]], self.labels[which]
        return self.share(z), self.share(labels[1]), self.share(real), self.share(labels[0])

    def generator_loss(self) -> Tensor:
        z, c, _, _ = self.draw(0)
        images, _ = self.parallel_generator(z, c, self.args.noise_mode)
        return losses.nonsaturating_generator_loss(self.discriminator(images, c))

    def path_length_loss(self) -> Tensor:
        z, c, _, _ = self.draw(1)
        half = max(1, len(z) // 2)  # half the batch saves time, as in the paper
        images, ws = self.parallel_generator(z[:half], c[:half], self.args.noise_mode)
        noise = torch.randn(self.args.batch, *images.shape[1:], generator=torch.Generator().manual_seed(self.step))
        penalty = self.path_length(images, ws, self.share(noise)[:half])
        return PATH_INTERVAL * penalty + 0 * images.sum()  # every parameter takes part, as DistributedDataParallel asks

    def discriminator_loss(self) -> Tensor:
        z, c, real, real_c = self.draw(2)
        with torch.no_grad():
            fake, _ = self.generator(z, c, self.args.noise_mode)
        # One call, since DistributedDataParallel wants one for each backward pass.
        scores = self.parallel_discriminator(torch.cat([real, fake]), torch.cat([real_c, c]))
        return losses.logistic_discriminator_loss(*scores.chunk(2))

    def r1_loss(self) -> Tensor:
        _, _, real, real_c = self.draw(3)
        real = real.requires_grad_()
        scores = self.parallel_discriminator(real, real_c)
        return R1_INTERVAL * losses.r1_penalty(scores, real, R1_GAMMA) + 0 * scores.sum()

    def update(self, loss: Callable[[], Tensor], network: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        other = self.discriminator if network is self.generator else self.generator
        with frozen(other):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
        return value.item()

    def advance(self) -> dict[str, float]:
        """One step; its losses."""
        g, d = (self.generator, self.generator_optimizer), (self.discriminator, self.discriminator_optimizer)
        values = {"generator_loss": self.update(self.generator_loss, *g)}
        if self.step % PATH_INTERVAL == 0:
            values["path_length"] = self.update(self.path_length_loss, *g) / PATH_INTERVAL
        values["discriminator_loss"] = self.update(self.discriminator_loss, *d)
        if self.step % R1_INTERVAL == 0:
            values["r1"] = self.update(self.r1_loss, *d) / R1_INTERVAL
        self.average.update_parameters(self.generator)
        self.step += 1
        return values

    @torch.no_grad()
    def sample(self, labels: Tensor, seed: int = 0) -> Tensor:
        """Images of the averaged generator."""
        z = torch.randn(len(labels), Z_DIM, generator=torch.Generator().manual_seed(seed)).to(self.args.device)
        net = self.average.module.net
        return torch.cat([net(a, b, noise_mode="const") for a, b in zip(z.split(100), labels.split(100), strict=True)])

    def evaluate(self) -> float:
        labels = self.labels[torch.arange(EVALUATION_SAMPLES) % len(self.labels)]
        return frechet_distance(features(self.images), features(self.sample(labels)))

    def modules(self) -> dict[str, nn.Module]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
            "path_length": self.path_length,
        }

    def save(self, folder: Path) -> None:
        """Writes folder/step-N whole or not at all, then removes older ones."""
        target, unfinished = folder / f"step-{self.step:07}", folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for name, module in self.modules().items():
            save_file(
                {key: t.contiguous() for key, t in module.state_dict().items()}, unfinished / f"{name}.safetensors"
            )
        optimizers = [self.generator_optimizer.state_dict(), self.discriminator_optimizer.state_dict()]
        torch.save(optimizers, unfinished / "optimizers.pt")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(unfinished, target)
        for old in sorted(folder.glob("step-*"))[:-1]:
            shutil.rmtree(old)

    def load(self, folder: Path) -> None:
        """The newest checkpoint of a folder, if it has any."""
        for newest in sorted(folder.glob("step-*"))[-1:]:
            for name, module in self.modules().items():
                module.load_state_dict(load_file(newest / f"{name}.safetensors"))
            saved = torch.load(newest / "optimizers.pt", weights_only=True)
            self.generator_optimizer.load_state_dict(saved[0])
            self.discriminator_optimizer.load_state_dict(saved[1])
            self.step = int(newest.name.removeprefix("step-"))


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    network.requires_grad_(False)
    yield
    network.requires_grad_(True)


def save_grid(images: Tensor, path: Path, columns: int) -> None:
    import PIL.Image

    rows = images.clamp(-1, 1).add(1).mul(127.5).round().byte().reshape(-1, columns, PIXELS, PIXELS)
    PIL.Image.fromarray(rows.transpose(1, 2).reshape(-1, columns * PIXELS).cpu().numpy()).save(path)


def save_plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for name in COLUMNS[1:]:
        points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name) not in (None, "")]
        if points:
            axes[int(name == COLUMNS[-1])].plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1)
    axes[1].set_yscale("log")
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def read_log(path: Path, steps: int) -> list[dict[str, Any]]:
    """The rows up to a step."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= steps]


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def train(args: argparse.Namespace, rank: int, world: int) -> None:
    import tqdm

    trainer = Trainer(args, rank, world)
    trainer.load(args.out)
    rows = read_log(args.out / "log.csv", trainer.step)
    if rank == 0 and not rows:
        rows.append({"step": 0, "frechet_distance": trainer.evaluate()})
    with tqdm.tqdm(total=args.steps, initial=trainer.step, disable=rank > 0 or None) as progress:
        while trainer.step < args.steps:
            values = trainer.advance()
            progress.update()
            if rank > 0:
                continue
            rows.append({"step": trainer.step, **values})
            if trainer.step % args.interval == 0 or trainer.step == args.steps:
                rows[-1]["frechet_distance"] = distance = trainer.evaluate()
                progress.set_postfix(frechet_distance=f"{distance:.3f}")
                trainer.save(args.out)
                write_log(args.out / "log.csv", rows)
                labels = torch.eye(CLASSES, device=args.device).repeat_interleave(CLASSES, 0)
                save_grid(trainer.sample(labels), args.out / "samples.png", CLASSES)
                save_plot(rows, args.out / "loss.png")
    if rank == 0:
        distances = [float(row["frechet_distance"]) for row in rows if row.get("frechet_distance") not in (None, "")]
        print(
            f"{args.out}: Frechet distance {distances[0]:.2f} at first, {distances[-1]:.2f} after {trainer.step} steps"
        )


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    def positive(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
        return int(text)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results and checkpoints")
    parser.add_argument("--steps", type=positive, default=2000, help="steps in all (default 2000)")
    parser.add_argument("--interval", type=positive, default=250, help="steps between checkpoints (default 250)")
    parser.add_argument("--batch", type=positive, default=32, help="images a step, of all processes (default 32)")
    parser.add_argument("--channels", type=positive, default=32, help="most feature maps of a layer (default 32)")
    parser.add_argument("--noise-mode", choices=["random", "const", "none"], default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    world = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    if args.batch % world:
        raise SystemExit(f"--batch must be a multiple of the {world} processes, got {args.batch}")
    args.out.mkdir(parents=True, exist_ok=True)
    if world == 1:
        return train(args, 0, 1)
    dist.init_process_group("gloo" if args.device == "cpu" else "nccl")
    if args.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        train(args, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
