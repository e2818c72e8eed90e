"""The least that blocks have to move: against gradients of the reference, and by hand."""

from __future__ import annotations

import pytest
import torch
from cases import _taps
from simt_emulator import Footprint
from traffic import Axis, Box, Images, Resampling

import ganops


@pytest.mark.parametrize(
    ("up", "up_taps", "pad", "down", "down_taps"),
    [(2, 12, 9, 2, 12), (4, 24, -6, 2, 12), (2, 12, 12, 4, 24), (1, 1, 2, 1, 4), (3, 5, 7, 2, 4)],
)
def test_boxes_hold_what_outputs_depend_on(up: int, up_taps: int, pad: int, down: int, down_taps: int) -> None:
    size = 30
    axis = Axis(size, up, up_taps, pad, down, down_taps)
    x = torch.rand(1, 1, 1, size, dtype=torch.float64).add(1).requires_grad_()
    fu, fd = _taps(up_taps, 1)[None].double(), _taps(down_taps, 2)[None].double()
    with ganops.backend("reference"):
        samples = ganops.upfirdn2d(x, fu, up=[up, 1], padding=[pad, 9, 0, 0])
        y = ganops.upfirdn2d(samples, fd, down=[down, 1])
        for first, last in ((0, 0), (0, 3), (2, 7), (y.shape[3] - 2, y.shape[3] - 1)):
            (needed,) = torch.autograd.grad(y[..., first : last + 1].sum(), x, retain_graph=True)
            (columns,) = needed[0, 0, 0].nonzero(as_tuple=True)
            begin, end = axis.inputs(first, last)
            assert columns.tolist() == list(range(begin, end + 1))
        mirror = axis.mirrored(y.shape[3])
        reaches = [torch.autograd.grad(y[..., o].sum(), x, retain_graph=True)[0][0, 0, 0] for o in range(y.shape[3])]
    for column in (0, 5, size - 1):
        begin, end = mirror.inputs(column, column)
        assert [o for o, reach in enumerate(reaches) if reach[column]] == list(range(begin, end + 1))


@pytest.mark.parametrize("row_by_row", [False, True])
@pytest.mark.parametrize("images", [Images(7, 9, 1, 2), Images(5, 6, 24, 2), Images(7, 41, 1, 1)])
def test_cost_of_a_box(images: Images, row_by_row: bool) -> None:
    inner = (0, 0) if images.inner == 1 else (8, 15)
    for columns in ((0, images.width - 1), (2, 4)):
        box = Box((0, 1), (1, 3), columns, inner)
        bytes, sectors = 0, []
        for plane in (0, 1):
            for row in (1, 2, 3):
                touched = set()
                for column in range(columns[0], columns[1] + 1):
                    for c in range(inner[0], inner[1] + 1):
                        at = ((plane * images.height + row) * images.width + column) * images.inner + c
                        bytes += images.bytes
                        touched |= {(5 + at * images.bytes + i) // 32 for i in range(images.bytes)}
                sectors.append(touched)
        expected = sum(map(len, sectors)) if row_by_row else len(set().union(*sectors))
        assert box.cost(images, 5, row_by_row) == (bytes, expected)


def test_a_footprint_that_is_no_box_is_an_error() -> None:
    images = Images(8, 16, 1, 2)
    row = Footprint(0, True, 2 * 16 * 2, 3 * 16 * 2 - 1, 32, 1)
    assert Box.of(row, images) == Box((0, 0), (2, 2), (0, 15), (0, 0))
    with pytest.raises(AssertionError):
        Box.of(Footprint(0, True, 0, 3 * 16 * 2 - 1, 32, 3), images)


def test_codes_that_outputs_need() -> None:
    axis = Axis(20, 2, 12, 9, 2, 12, code=-3)
    layer = Resampling(axis, axis, 16, 16, 3, 2, codes_height=42, codes_width=42)
    out = Box((1, 1), (0, 7), (8, 15), (0, 0))
    assert layer.needs("read_codes", out) == Box((1, 1), (0, 22), (13 // 4, 38 // 4), (0, 0))
