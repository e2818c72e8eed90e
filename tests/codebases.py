"""Tiny codebases in the layouts of the family, written for the tests: files by path."""

# Running one of these files is an error: served modules must not be run, and their functions not be called.
UNTOUCHABLE = 'raise RuntimeError("a file that ganops replaces was run")\n'

MISC = """
def profiled_function(function):
    def decorator(*args, **kwargs):
        return function(*args, **kwargs)
    decorator.__name__ = function.__name__
    return decorator
"""

PERSISTENCE = """
import sys, types
_module_to_src_dict, _src_to_module_dict = {}, {}
def _src_to_module(src):
    if src not in _src_to_module_dict:
        module = types.ModuleType(f"unpickled_{len(_src_to_module_dict)}")
        sys.modules[module.__name__] = module
        _module_to_src_dict[module], _src_to_module_dict[src] = src, module
        exec(src, module.__dict__)
    return _src_to_module_dict[src]
"""

BIAS_ACT = """
def bias_act(x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='cuda'):
    raise RuntimeError("the codebase's own")
"""

UPFIRDN2D = """
import torch
def setup_filter(f, device=torch.device('cpu'), normalize=True, flip_filter=False, gain=1, separable=None):
    raise RuntimeError("the codebase's own")
def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='cuda'):
    raise RuntimeError("the codebase's own")
"""

FILTERED_LRELU = """
import numpy as np
def filtered_lrelu(x, fu=None, fd=None, b=None, up=1, down=1, padding=0, gain=np.sqrt(2), slope=0.2, clamp=None,
                   flip_filter=False, impl='cuda'):
    raise RuntimeError("the codebase's own")
"""

CONV2D_GRADFIX = """
import contextlib
enabled = False
weight_gradients_disabled = False
@contextlib.contextmanager
def no_weight_gradients():
    yield
def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    raise RuntimeError("the codebase's own")
def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    raise RuntimeError("the codebase's own")
"""

CUSTOM_OPS = """
verbosity = 'brief'
def get_plugin(module_name, sources, headers=None, source_dir=None, **build_kwargs):
    return module_name, sources, headers, verbosity
"""

# By definition, a sample at a time; what a network file of each system offers under the name.
NETWORKS_STYLEGAN2 = """
import torch
from torch_utils import misc
from torch_utils.ops import upfirdn2d
@misc.profiled_function
def modulated_conv2d(x, weight, styles, noise=None, up=1, down=1, padding=0, resample_filter=None, demodulate=True,
                     flip_weight=True, fused_modconv=True):
    w = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if not flip_weight:
        w = w.flip([3, 4])
    assert up == down == 1
    y = torch.cat([torch.nn.functional.conv2d(x[i:i + 1], w[i], padding=padding) for i in range(len(x))])
    return y if noise is None else y + noise
"""

NETWORKS_STYLEGAN3 = """
import torch
def modulated_conv2d(x, w, s, demodulate=True, padding=0, input_gain=None):
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()
    w = w[None] * s[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if input_gain is not None:
        w = w * input_gain.expand(s.shape)[:, None, :, None, None]
    return torch.cat([torch.nn.functional.conv2d(x[i:i + 1], w[i], padding=padding) for i in range(len(x))])
"""

NVLABS = {
    "torch_utils/__init__.py": "",
    "torch_utils/misc.py": MISC,
    "torch_utils/persistence.py": PERSISTENCE,
    "torch_utils/custom_ops.py": CUSTOM_OPS,
    "torch_utils/ops/__init__.py": "",
    "torch_utils/ops/bias_act.py": UNTOUCHABLE + BIAS_ACT,
    "torch_utils/ops/upfirdn2d.py": UNTOUCHABLE + UPFIRDN2D,
    "torch_utils/ops/filtered_lrelu.py": UNTOUCHABLE + FILTERED_LRELU,
    "torch_utils/ops/conv2d_gradfix.py": UNTOUCHABLE + CONV2D_GRADFIX,
    "training/__init__.py": "",
    "training/networks_stylegan2.py": NETWORKS_STYLEGAN2,
    "training/networks_stylegan3.py": NETWORKS_STYLEGAN3,
}

FUSED_ACT = """
import torch
import torch.nn.functional as F
class FusedLeakyReLU(torch.nn.Module):
    def __init__(self, channel, bias=True, negative_slope=0.2, scale=2 ** 0.5):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(channel)) if bias else None
        self.negative_slope, self.scale = negative_slope, scale
    def forward(self, input):
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)
def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2 ** 0.5):
    calls.append("the codebase's own")
    if bias is not None:
        input = input + bias.reshape(1, -1, *[1] * (input.ndim - 2))
    return F.leaky_relu(input, negative_slope) * scale
calls = []
"""
FUSED_ACT_BIASED = (
    FUSED_ACT.replace("channel, bias=True,", "channel,")
    .replace("if bias else None", "")
    .replace("input, bias=None,", "input, bias,")
)

ROSINALITY_UPFIRDN2D = """
def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):
    raise RuntimeError("the codebase's own")
"""

OP = "from .fused_act import FusedLeakyReLU, fused_leaky_relu\nfrom .upfirdn2d import upfirdn2d\n"

# A layer by definition; the transposed convolution multiplies zeros.
MODEL = """
import torch
import torch.nn.functional as F
from op import FusedLeakyReLU, upfirdn2d
class Blur(torch.nn.Module):
    def __init__(self, kernel, pad, upsample_factor=1):
        super().__init__()
        kernel = torch.outer(torch.tensor(kernel), torch.tensor(kernel)).float()
        self.register_buffer("kernel", kernel / kernel.sum() * upsample_factor ** 2)
        self.pad = pad
    def forward(self, input):
        n, c, h, w = input.shape
        flipped = self.kernel.flip([0, 1])[None, None].to(input.dtype)
        return F.conv2d(F.pad(input, self.pad * 2).reshape(n * c, 1, h + sum(self.pad), -1), flipped).unflatten(
            0, (n, c)).squeeze(2)
class ModulatedConv2d(torch.nn.Module):
    def __init__(self, in_channel, out_channel, kernel_size, style_dim, demodulate=True, upsample=False,
                 downsample=False, blur_kernel=[1, 3, 3, 1], fused=True):
        super().__init__()
        self.eps, self.scale, self.demodulate = 1e-8, (in_channel * kernel_size ** 2) ** -0.5, demodulate
        self.upsample, self.downsample, self.padding = upsample, downsample, kernel_size // 2
        if upsample:
            p = len(blur_kernel) - 2 - (kernel_size - 1)
            self.blur = Blur(blur_kernel, ((p + 1) // 2 + 1, p // 2 + 1), 2)
        if downsample:
            p = len(blur_kernel) - 2 + (kernel_size - 1)
            self.blur = Blur(blur_kernel, ((p + 1) // 2, p // 2))
        self.weight = torch.nn.Parameter(torch.randn(1, out_channel, in_channel, kernel_size, kernel_size))
        self.modulation = torch.nn.Linear(style_dim, in_channel)
    def forward(self, input, style):
        w = self.scale * self.weight * self.modulation(style)[:, None, :, None, None]
        if self.demodulate:
            w = w * (w.square().sum([2, 3, 4], keepdim=True) + self.eps).rsqrt()
        samples = list(zip(input.split(1), w))
        if self.upsample:
            return self.blur(torch.cat([F.conv_transpose2d(x, v.transpose(0, 1), stride=2) for x, v in samples]))
        if self.downsample:
            return torch.cat([F.conv2d(self.blur(x), v, stride=2) for x, v in samples])
        return torch.cat([F.conv2d(x, v, padding=self.padding) for x, v in samples])
"""

ROSINALITY = {
    "op/__init__.py": OP,
    "op/fused_act.py": UNTOUCHABLE + FUSED_ACT,
    "op/upfirdn2d.py": UNTOUCHABLE + ROSINALITY_UPFIRDN2D,
    "model.py": MODEL,
}

BASICSR = {
    "basicsr/__init__.py": "",
    "basicsr/ops/__init__.py": "",
    "basicsr/ops/fused_act/__init__.py": "from .fused_act import FusedLeakyReLU, fused_leaky_relu\n",
    "basicsr/ops/fused_act/fused_act.py": UNTOUCHABLE + FUSED_ACT_BIASED,
    "basicsr/ops/upfirdn2d/__init__.py": "from .upfirdn2d import upfirdn2d\n",
    "basicsr/ops/upfirdn2d/upfirdn2d.py": UNTOUCHABLE + ROSINALITY_UPFIRDN2D,
}

MMCV = {
    "mmcv/__init__.py": "",
    "mmcv/ops/__init__.py": """
from mmcv import _ext
from .bias_act import bias_act
from .fused_bias_leakyrelu import FusedBiasLeakyReLU, fused_bias_leakyrelu
from .upfirdn2d import upfirdn2d
""",
    "mmcv/ops/bias_act.py": UNTOUCHABLE
    + "def bias_act(input, bias=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, use_custom_op=True): 0",
    "mmcv/ops/fused_bias_leakyrelu.py": UNTOUCHABLE
    + "def fused_bias_leakyrelu(input, bias, negative_slope=0.2, scale=2**0.5): 0",
    "mmcv/ops/upfirdn2d.py": UNTOUCHABLE
    + "def upfirdn2d(input, filter, up=1, down=1, padding=0, flip_filter=False, gain=1, use_custom_op=True): 0",
}
