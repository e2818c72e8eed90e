"""filter_energy: the sum of squares of each filter's taps, which demodulation takes, in one pass on CPUs."""

import torch
from torch import Tensor

from .. import _backend
from ._convolution import needs_graph
from ._library import Operator, register_composed

_NAME = "filter_energy"
_DTYPE = torch.float32  # whatever torch.float32 will be: some rename it to run a network in float64


def filter_energy(weight: Tensor) -> Tensor:
    """[O, I] of weight [O, I, kh, kw]."""
    if needs_graph(weight) or weight.dtype != _DTYPE or not _backend.has_cpu_kernel(_NAME, weight):
        return _reference(weight)
    energy: Tensor = torch.ops.ganops.filter_energy(weight)
    return energy


def _reference(weight: Tensor) -> Tensor:
    return weight.square().sum([2, 3])


def _fake(weight: Tensor) -> Tensor:
    return weight.new_empty(weight.shape[:2])


register_composed(Operator(_NAME, "(Tensor weight) -> Tensor", _reference, _fake))
