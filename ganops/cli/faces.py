"""``python -m ganops faces``: faces of people who do not exist, from MobileStyleGAN's trained weights."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import BAD_ARGUMENT, CommandError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ..models import MobileStyleGAN

IMAGE_SIZE = 1024
MAX_SEED = 2**63 - 1
MAX_FACES = 100_000
MAX_GRID_PIXELS = 2**26
"""Larger pictures are refused: image readers take them for decompression bombs."""

DESCRIPTION = """Draw faces from the trained MobileStyleGAN weights of the package random-face, which is installed by:
pip install --no-deps random-face"""

EPILOG = """A seed gives the same face on every run and machine, up to rounding: z is drawn on the CPU from a generator
of its own. With {seed} in --out every face becomes a file (--out "face{seed}.png"); without it, all make one grid."""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "faces", help="draw faces from trained weights", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--seeds", type=parse_seeds, default="0-7", metavar="LIST", help="such as 0-7 or 1,5,9-12 (default 0-7)"
    )
    parser.add_argument(
        "--truncation",
        type=_finite,
        default=0.7,
        metavar="PSI",
        help="1 for all variety, 0 for the mean face (default 0.7)",
    )
    parser.add_argument(
        "--out", default="faces.png", metavar="PNG", help="grid, or with {seed} one file each (default faces.png)"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with the weights' .xml and .bin files")
    parser.add_argument("--batch", type=_positive, default=1, metavar="N", help="faces drawn at once (default 1)")
    parser.add_argument(
        "--size", type=_positive, default=IMAGE_SIZE, metavar="PIXELS", help="side of a face, at most 1024 (default)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to draw (default cpu)")
    parser.add_argument(
        "--backend", choices=["auto", "reference"], default="auto", help="reference is plain PyTorch (default auto)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    paths = _check(args)
    try:
        import PIL.Image
        import tqdm  # type: ignore[import-untyped]
    except ImportError as error:
        raise CommandError(f"{error.name} is not installed; get it with: pip install 'ganops[faces]'") from None
    import torch

    from .. import backend, backends

    if args.device == "cuda" and not torch.cuda.is_available():
        raise CommandError("argument --device: torch sees no CUDA device", BAD_ARGUMENT)
    model = _load(args.weights).to(args.device)
    columns = grid_columns(len(args.seeds))
    rows = math.ceil(len(args.seeds) / columns)
    grid = PIL.Image.new("RGB", (columns * args.size, rows * args.size)) if "{seed}" not in args.out else None
    seconds = 0.0
    with backend(args.backend), tqdm.tqdm(total=len(args.seeds), unit="face") as progress:
        for start in range(0, len(args.seeds), args.batch):
            begin = time.perf_counter()
            images = draw(model, args.seeds[start : start + args.batch], args.truncation)
            seconds += time.perf_counter() - begin
            for i, image in enumerate(to_pictures(images, args.size), start):
                if grid is None:
                    save_png(image, paths[i])
                else:
                    grid.paste(image, (i % columns * args.size, i // columns * args.size))
            progress.update(len(images))
    if grid is not None:
        save_png(grid, paths[0])
    status = "reference" if args.backend == "reference" else backends()[args.device]
    operators = f"compiled for {args.device}" if status == "available" else f"plain PyTorch ({status})"
    faces = "face" if len(args.seeds) == 1 else "faces"
    print(
        f"{args.out}: {len(args.seeds)} {faces} in {seconds:.2f} s, {len(args.seeds) / seconds:.2f} images/s"
        f" on {args.device} ({torch.get_num_threads()} threads); operators: {operators}"
    )
    return 0


def draw(model: MobileStyleGAN, seeds: Sequence[int], truncation: float) -> Tensor:
    """Faces of these seeds as the network draws them: [N, 3, 1024, 1024] on the CPU, in about [-1, 1]."""
    import torch

    with torch.inference_mode():
        z = torch.cat(
            [torch.randn(1, model.style_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        images: Tensor = model(z.to(model.mapping.w_avg), truncation)
        return images.cpu()


def to_pictures(images: Tensor, size: int) -> list[Image]:
    """[N, 3, H, W] in [-1, 1] to RGB pictures of ``size`` pixels a side, reduced by a Lanczos filter."""
    import PIL.Image
    import torch

    pixels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pictures = [PIL.Image.fromarray(array) for array in pixels]
    if size == images.shape[-1]:
        return pictures
    return [picture.resize((size, size), PIL.Image.Resampling.LANCZOS) for picture in pictures]


def grid_columns(count: int) -> int:
    """Columns of a grid without gaps, where one not wider than four times its height exists; else of a square one."""
    square = math.ceil(math.sqrt(count))
    return next((columns for columns in range(square, 2 * square + 1) if count % columns == 0), square)


def save_png(picture: Image, path: Path) -> None:
    """Write all of a PNG or nothing: an interrupted run leaves no half of a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        picture.save(part, format="PNG")
        os.replace(part, path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def parse_seeds(text: str) -> list[int]:
    """ "0-2,7" to [0, 1, 2, 7]."""
    ranges = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,19})(?:-([0-9]{1,19}))?\s*", item)
        if not match:
            raise argparse.ArgumentTypeError(
                f"{item!r} is neither a seed nor a range; expected such as 0-7 or 1,5,9-12"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= MAX_SEED:
            raise argparse.ArgumentTypeError(f"{item!r} is not a growing range of seeds up to {MAX_SEED}")
        ranges.append(range(first, last + 1))
    count = sum(r.stop - r.start for r in ranges)
    if count > MAX_FACES:
        raise argparse.ArgumentTypeError(f"{text!r} names {count} seeds, expected at most {MAX_FACES}")
    return list(itertools.chain.from_iterable(ranges))


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _check(args: argparse.Namespace) -> list[Path]:
    """The files to write: one a seed, or one grid."""
    if args.size > IMAGE_SIZE:
        raise CommandError(f"argument --size: expected at most {IMAGE_SIZE}, got {args.size}", BAD_ARGUMENT)
    if not args.out.lower().endswith(".png"):
        raise CommandError(f"argument --out: expected a name that ends in .png, got {args.out!r}", BAD_ARGUMENT)
    per_seed = "{seed}" in args.out
    paths = [Path(args.out.replace("{seed}", str(seed))) for seed in args.seeds] if per_seed else [Path(args.out)]
    for path in paths:
        if not path.parent.is_dir():
            raise CommandError(f"argument --out: folder {str(path.parent)!r} does not exist", BAD_ARGUMENT)
        if path.is_dir():
            raise CommandError(f"argument --out: {str(path)!r} is a folder", BAD_ARGUMENT)
    if not per_seed and len(args.seeds) * args.size**2 > MAX_GRID_PIXELS:
        most = MAX_GRID_PIXELS // args.size**2
        raise CommandError(
            f"argument --out: a grid holds at most {most} faces of {args.size} pixels, got {len(args.seeds)};"
            " lower --size, or write a file each with {seed} in --out",
            BAD_ARGUMENT,
        )
    return paths


def _load(weights: Path | None) -> MobileStyleGAN:
    from ..models import MobileStyleGAN

    try:
        return MobileStyleGAN.from_pretrained(weights)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from None
