"""A launch that CUDA refuses is a RuntimeError that names operator and sizes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from cases import BLUR, DOWN12, UP12, _full
from simt_ops import emulated_ops

import ganops

INVALID_CONFIGURATION = 9


def epilogue(x: torch.Tensor) -> torch.Tensor:
    scale, noise, b = torch.ones(2, 3), torch.ones(1, 1, 20, 24), torch.ones(3)
    y: torch.Tensor = torch.ops.ganops_simt.modulated_conv2d_epilogue(x, scale, noise, b, "lrelu", 0.2, 1.4, 256.0)
    return y


# By kernel: a call, and the sizes that its error names.
LAUNCHERS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "bias_act": (lambda x: ganops.bias_act(x, torch.ones(3)), "ganops::bias_act failed: .+; sizes: 2 3 480"),
    "epilogue": (epilogue, "ganops::modulated_conv2d_epilogue failed: .+; sizes: 2 3 480"),
    "tiled": (
        lambda x: ganops.upfirdn2d(x, BLUR, padding=[2, 1, 2, 1]),
        "ganops::upfirdn2d failed: .+; sizes: 2 3 20 24 20 24",
    ),
    "generic": (
        lambda x: ganops.upfirdn2d(x, _full(3, 5, 1)),
        "ganops::upfirdn2d failed: .+; sizes: 2 3 20 24 18 20",
    ),
    "march": (
        lambda x: ganops.filtered_lrelu(x, UP12, DOWN12, up=2, down=2, padding=11),
        "ganops::filtered_lrelu failed: .+; sizes: 2 3 20 24 20 24",
    ),
    "direct": (
        lambda x: ganops.filtered_lrelu(x, None, None),
        "ganops::filtered_lrelu failed: .+; sizes: 2 3 20 24 20 24",
    ),
}


@pytest.mark.parametrize("kernel", LAUNCHERS)
def test_a_refused_launch_is_an_error_that_names_operator_and_sizes(kernel: str) -> None:
    emulator = emulated_ops("simt")
    emulator.configure()
    emulator.clear()
    call, expected = LAUNCHERS[kernel]
    x = torch.ones(2, 3, 20, 24)
    with ganops.backend("simt"):
        call(x)
        assert kernel in emulator.launches()[0].kernel
        with emulator.refusing(INVALID_CONFIGURATION), pytest.raises(RuntimeError, match=expected) as raised:
            call(x)
        assert re.search("invalid configuration", str(raised.value))
        call(x)
    assert emulator.diagnostics() == []
