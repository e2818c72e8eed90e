"""``mmcv.ops.bias_act``."""

from torch import Tensor

from ganops.compat._arguments import impl_of
from ganops.compat.served.nvlabs.bias_act import EasyDict, activation_funcs
from ganops.compat.served.nvlabs.bias_act import bias_act as _bias_act

__all__ = ["EasyDict", "activation_funcs", "bias_act"]


def bias_act(
    input: Tensor,
    bias: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    use_custom_op: bool = True,
) -> Tensor:
    return _bias_act(input, bias, dim, act, alpha, gain, clamp, impl_of(use_custom_op))
