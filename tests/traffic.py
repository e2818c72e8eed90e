"""What a launch moves of each buffer, as the emulator counts it, against the least that its blocks have to move.

A block has to read what its outputs depend on: its box of the input. What boxes have in common is their halo, which is
counted apart. A box's sectors are those that its rows lie in: rows that are no multiple of a sector end inside of one,
and neighbouring boxes both have to touch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from simt_emulator import BufferUse, Footprint, Launch

SECTOR = 32  # bytes
# Small, and read by all threads: once in a block's first-level cache, they cost nothing more. All else is a tensor.
OPERANDS = frozenset({"b", "f", "fu", "fd", "scale", "x_scale", "y_scale", "noise"})


@dataclass(frozen=True)
class Axis:
    """Output o sums the samples from o * down on, and sample m the inputs i with 0 <= i * up + pad - m < up_taps."""

    size: int  # of the input
    up: int = 1
    up_taps: int = 1
    pad: int = 0
    down: int = 1
    down_taps: int = 1
    code: int = 0  # where sample 0 has its code

    def samples(self, first: int, last: int) -> tuple[int, int]:
        return first * self.down, last * self.down + self.down_taps - 1

    def inputs(self, first: int, last: int) -> tuple[int, int]:
        """The inputs that outputs first to last depend on, inside the image."""
        low, high = self.samples(first, last)
        begin, end = -((self.pad - low) // self.up), (high + self.up_taps - 1 - self.pad) // self.up
        return max(begin, 0), min(end, self.size - 1)

    def codes(self, first: int, last: int) -> tuple[int, int]:
        low, high = self.samples(first, last)
        return low + self.code, high + self.code

    def mirrored(self, size: int) -> Axis:
        """The gradient's axis: its input, of this size, is the output here."""
        start = self.pad - (self.up_taps - 1)  # the first sample that input 0 reaches
        pad = self.down_taps - 1 - start
        return Axis(size, self.down, self.down_taps, pad, self.up, self.up_taps, self.code + start)


@dataclass(frozen=True)
class Images:
    """[planes, height, width, inner] in memory: inner is 1, or the channels where these come last."""

    height: int
    width: int
    inner: int
    bytes: int  # of an element


@dataclass(frozen=True)
class Box:
    planes: tuple[int, int]  # first and last; likewise
    rows: tuple[int, int]
    columns: tuple[int, int]
    inner: tuple[int, int]

    @staticmethod
    def of(footprint: Footprint, images: Images) -> Box:
        """The box between a footprint's outermost elements, all of which it must hold."""
        corners = []
        for byte in (footprint.first, footprint.last):
            rest, inner = divmod(byte // images.bytes, images.inner)
            rest, column = divmod(rest, images.width)
            plane, row = divmod(rest, images.height)
            corners.append((plane, row, column, inner))
        box = Box(*zip(*corners, strict=True))
        assert box.cost(images, 0)[0] == footprint.bytes, (footprint, images)
        return box

    def cost(self, images: Images, start: int, row_by_row: bool = False) -> tuple[int, int]:
        """Bytes and sectors of the box in a tensor that begins at byte ``start`` of a sector.

        A sector that two of the box's rows share counts once, or twice where they are moved row by row.
        """
        (p0, p1), (y0, y1), (x0, x1), (c0, c1) = self.planes, self.rows, self.columns, self.inner
        if y1 < y0 or x1 < x0:
            return 0, 0
        pieces = torch.arange(p0, p1 + 1)[:, None] * images.height + torch.arange(y0, y1 + 1)
        pieces = pieces[..., None] * images.width + (
            torch.arange(x0, x1 + 1) if c1 - c0 + 1 < images.inner else torch.tensor([x0])
        )
        length = (c1 - c0 + 1) * (1 if c1 - c0 + 1 < images.inner else x1 - x0 + 1) * images.bytes
        begin = start + (pieces.flatten() * images.inner + c0) * images.bytes
        first, last = begin // SECTOR, (begin + length - 1) // SECTOR
        sectors = int((last - first + 1).sum())
        if not row_by_row:
            sectors -= int((first[1:] == last[:-1]).sum())
        return begin.numel() * length, sectors


@dataclass(frozen=True)
class Resampling:
    """Which inputs, and codes, the outputs of a launch depend on."""

    x: Axis
    y: Axis
    out_height: int
    out_width: int
    channels: int
    element_bytes: int
    channels_last: bool = False
    row_by_row: bool = False
    codes_height: int = 0
    codes_width: int = 0

    def images(self, buffer: str) -> Images:
        if buffer.endswith("codes"):
            return Images(self.codes_height, -(-self.codes_width // 4), 1, 1)
        height, width = (self.out_height, self.out_width) if buffer == "y" else (self.y.size, self.x.size)
        return Images(height, width, self.channels if self.channels_last else 1, self.element_bytes)

    def needs(self, buffer: str, out: Box) -> Box:
        """What outputs need of the input or of the codes."""
        if buffer == "x":
            rows, columns = self.y.inputs(*out.rows), self.x.inputs(*out.columns)
            return Box(out.planes, rows, columns, out.inner)
        rows, columns = self.y.codes(*out.rows), self.x.codes(*out.columns)
        planes, inner = out.planes, (0, 0)
        if self.channels_last:
            planes = tuple(p * self.channels + c for p, c in zip(out.planes, out.inner, strict=True))
        rows = max(rows[0], 0), min(rows[1], self.codes_height - 1)
        columns = max(columns[0], 0), min(columns[1], self.codes_width - 1)
        return Box(planes, rows, (columns[0] // 4, columns[1] // 4), inner)

    def least(self, buffer: BufferUse, write: bool, outputs: Sequence[Footprint]) -> tuple[int, int]:
        """The bytes and sectors that blocks have to touch of a tensor, each block's once."""
        boxes = []
        images = self.images(buffer.name)
        if write:
            boxes = [Box.of(footprint, images) for footprint in buffer.footprints if footprint.write]
        else:
            boxes = [self.needs(buffer.name, Box.of(footprint, self.images("y"))) for footprint in outputs]
        costs = [box.cost(images, buffer.start, self.row_by_row) for box in boxes]
        return sum(bytes for bytes, _ in costs), sum(sectors for _, sectors in costs)

    def mirrored(self, **changes: int) -> Resampling:
        """The gradient's."""
        return Resampling(
            self.x.mirrored(self.out_width),
            self.y.mirrored(self.out_height),
            self.y.size,
            self.x.size,
            self.channels,
            self.element_bytes,
            self.channels_last,
            self.row_by_row,
            self.codes_height,
            self.codes_width,
        )


@dataclass(frozen=True)
class Traffic:
    """Of a buffer, read or written. Warps' requests: what lanes of one instruction share is moved once."""

    buffer: str
    write: bool
    once: int  # distinct bytes
    moved: int  # bytes
    halo: int  # bytes of them that other blocks have to move as well
    sectors: int
    least_sectors: int

    @property
    def bytes_ratio(self) -> float:
        return (self.moved - self.halo) / self.once

    @property
    def sector_ratio(self) -> float:
        return self.sectors / self.least_sectors

    def __str__(self) -> str:
        name = f"{'to' if self.write else 'from'} {self.buffer}"
        return f"{name}: bytes {self.bytes_ratio:.3f}, sectors {self.sector_ratio:.3f}"


def traffic_of(launch: Launch, resampling: Resampling | None = None) -> list[Traffic]:
    """The launch's traffic by buffer. Without a resampling, blocks have to touch what they do touch, once."""
    found = []
    outputs = [f for buffer in launch.buffers if buffer.name == "y" for f in buffer.footprints if f.write]
    for buffer in launch.buffers:
        for write in (False, True):
            footprints = [f for f in buffer.footprints if f.write == write]
            if not footprints:
                continue
            once = buffer.bytes_written if write else buffer.bytes_read
            least_bytes, least_sectors = sum(f.bytes for f in footprints), sum(f.sectors for f in footprints)
            moved, sectors = least_bytes, least_sectors
            if buffer.name not in OPERANDS:
                accesses = [a for a in launch.accesses if a.buffer == buffer.name and a.write == write]
                moved, sectors = sum(a.moved for a in accesses), sum(a.transactions for a in accesses)
                if resampling is not None:
                    least_bytes, least_sectors = resampling.least(buffer, write, outputs)
            halo = max(least_bytes - once, 0)
            found.append(Traffic(buffer.name, write, once, moved, halo, sectors, least_sectors))
    return found


def bytes_ratio(traffic: Sequence[Traffic]) -> float:
    """Bytes moved over every buffer once, the halo apart."""
    return sum(t.moved - t.halo for t in traffic) / sum(t.once for t in traffic)


def halo_ratio(traffic: Sequence[Traffic]) -> float:
    return sum(t.halo for t in traffic) / sum(t.once for t in traffic)
