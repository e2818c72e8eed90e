"""``torch_utils.ops.bias_act``."""

from typing import Any

from torch import Tensor

import ganops
from ganops.compat._arguments import implementation, like, optional_number
from ganops.reference.bias_act import ACTIVATIONS


class EasyDict(dict[str, Any]):
    """A dictionary whose items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


activation_funcs = {
    name: EasyDict(func=lambda x, alpha=0, a=a, **_: a.function(x, alpha), def_alpha=a.alpha, def_gain=a.gain)
    for name, a in ACTIVATIONS.items()
}


def _init() -> bool:
    """There is nothing to compile."""
    return True


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> Tensor:
    with implementation(impl):
        return ganops.bias_act(
            x, like(b, x), dim, act, optional_number(alpha), optional_number(gain), optional_number(clamp)
        )
