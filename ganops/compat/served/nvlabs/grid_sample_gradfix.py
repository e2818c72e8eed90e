"""``torch_utils.ops.grid_sample_gradfix``: bilinear sampling, whose gradients of any order torch has today.

Before torch 2.12 it had the first order alone; a gradient penalty through it then raises torch's own error.
"""

import torch.nn.functional as F
from torch import Tensor

enabled = False  # set by training loops; both states are the same here


def grid_sample(input: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
