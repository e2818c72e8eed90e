"""Other projects' code, imported unmodified from a checkout and run as its own clients run it."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.utils.cpp_extension
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from .calls import OPERATORS, Call
from .networks import Z_DIM, Network

MAPPING_LAYERS = 8
STAND_INS = ("pkg_resources", "requests")
Run = Callable[[dict[str, Tensor]], Tensor]


class Peer:
    """A checkout. Its functions and classes take what ours take, or there is None."""

    gives_weights = False

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def operator(self, call: Call) -> Run | None:
        """Its own function for this call of an operator."""
        return None

    def network(self, network: Network) -> nn.Module | None:
        """Its own class with the same sizes."""
        return None

    def forward(self, network: Network, module: nn.Module, z: Tensor) -> Tensor:
        """Its image of z, by the noise that is stored in the network."""
        raise NotImplementedError

    def share_weights(self, network: Network, theirs: nn.Module, ours: nn.Module) -> None:
        """Makes the weights of both the same: its own, if it ``gives_weights``, else ours."""
        raise NotImplementedError


class NvLabs(Peer):
    """NVlabs/stylegan3 and NVlabs/stylegan2-ada-pytorch, whose operators and classes have one layout."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name, path)
        with importing_from(path) as self._modules:
            self._ops = {op: _module(f"torch_utils.ops.{op}") for op in OPERATORS if op != "modulated_conv2d"}
            self._networks = {
                "stylegan2": _module("training.networks_stylegan2") or _module("training.networks"),
                "stylegan3": _module("training.networks_stylegan3"),
            }
            self.loss = _module("training.loss")
        self.is_older = self._networks["stylegan3"] is None  # of the two repositories

    def operator(self, call: Call) -> Run | None:
        if call.op == "modulated_conv2d":
            return self._modulated_conv2d(call)
        module = self._ops[call.op]
        if module is None:
            return None
        function = getattr(module, call.op)
        if call.op == "conv2d_resample":
            return lambda tensors: function(**tensors, **call.options_beside(tensors["x"]))

        def run(tensors: dict[str, Tensor]) -> Tensor:
            x = tensors["x"]
            result: Tensor = function(**tensors, **call.options_beside(x), impl=_implementation(x))
            return result

        return run

    def _modulated_conv2d(self, call: Call) -> Run | None:
        """Its convolution with the weights of each sample, then its bias_act."""
        style = "stylegan3" if "input_gain" in call.shapes else "stylegan2"
        networks, activation = self._networks[style], self._ops["bias_act"]
        if networks is None or activation is None:
            return None
        after = {k: v for k, v in call.options.items() if k in ("act", "alpha", "gain", "clamp")}

        def run(tensors: dict[str, Tensor]) -> Tensor:
            options = call.options_beside(tensors["x"])
            before = {k: v for k, v in options.items() if k not in (*after, "prenormalize")}
            bias = tensors.get("bias")
            rest = {name: value for name, value in tensors.items() if name not in ("x", "bias")}
            given = {"w" if name == "weight" else "s" if name == "styles" else name: v for name, v in rest.items()}
            if style == "stylegan2":
                given = rest
            y = networks.modulated_conv2d(tensors["x"], **given, **before)
            if bias is None and not after:
                result: Tensor = y
                return result
            result = activation.bias_act(y, bias, **after, impl=_implementation(y))
            return result

        return run

    def network(self, network: Network) -> nn.Module | None:
        module = self._networks[network.family]
        if module is None:
            return None
        sizes, rest = network.sizes, network.options
        with mock.patch.dict(sys.modules, self._modules):  # its classes look themselves up when they are made
            if network.is_discriminator:
                made: nn.Module = module.Discriminator(0, sizes["img_resolution"], 3, **rest)
                return made
            if self.is_older:
                rest = {"synthesis_kwargs": rest}
            made = module.Generator(Z_DIM, 0, Z_DIM, sizes["img_resolution"], 3, **rest)
            return made

    def forward(self, network: Network, module: nn.Module, z: Tensor) -> Tensor:
        options = {"noise_mode": "const"} if network.family == "stylegan2" and not network.is_discriminator else {}
        image: Tensor = module(z, None, **options)
        return image

    def share_weights(self, network: Network, theirs: nn.Module, ours: nn.Module) -> None:
        theirs.load_state_dict(ours.state_dict())


def _implementation(x: Tensor) -> str:
    """NVlabs' plain PyTorch on a CPU, as their own code chooses; their kernels on a GPU."""
    return "cuda" if x.is_cuda else "ref"


class Rosinality(Peer):
    """rosinality/stylegan2-pytorch: StyleGAN2 alone."""

    gives_weights = True  # by our reader of its checkpoints

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name, path)
        # It compiles CUDA code at import, which a CPU does not call.
        with importing_from(path), mock.patch.object(torch.utils.cpp_extension, "load", lambda *_, **__: None):
            self._op, self._model = _module("op"), _module("model")

    def operator(self, call: Call) -> Run | None:
        options, op = call.options, self._op
        if op is None:
            return None
        if call.op == "upfirdn2d":
            f, pad = options.get("f"), options.get("padding", 0)
            if f is None or f.ndim != 2 or options.get("flip_filter"):
                return None
            kernel = f * options.get("gain", 1)
            pads = tuple(pad) if isinstance(pad, list | tuple) else (pad, pad)
            factors = {name: options.get(name, 1) for name in ("up", "down")}
            return lambda tensors: op.upfirdn2d(tensors["x"], kernel.to(tensors["x"]), **factors, pad=pads)
        is_lrelu = options.get("act") == "lrelu" and "b" in call.shapes and len(call.shapes["x"]) == 4
        if call.op == "bias_act" and is_lrelu and options.get("clamp") is None:
            slope, scale = options.get("alpha") or 0.2, options.get("gain") or 2**0.5
            return lambda tensors: op.fused_leaky_relu(tensors["x"], tensors["b"], slope, scale)
        return None

    def network(self, network: Network) -> nn.Module | None:
        if network.family != "stylegan2" or self._model is None:
            return None
        size = network.sizes["img_resolution"]
        made: nn.Module = (
            self._model.Discriminator(size)
            if network.is_discriminator
            else self._model.Generator(size, Z_DIM, MAPPING_LAYERS)
        )
        return made

    def forward(self, network: Network, module: nn.Module, z: Tensor) -> Tensor:
        if network.is_discriminator:
            score: Tensor = module(z)
            return score
        image: Tensor = module([z], randomize_noise=False)[0]
        return image

    def share_weights(self, network: Network, theirs: nn.Module, ours: nn.Module) -> None:
        from ..compat import load_rosinality

        key, file = "d" if network.is_discriminator else "g", io.BytesIO()
        torch.save({key: theirs.state_dict()}, file)
        file.seek(0)
        ours.load_state_dict(load_rosinality(file, [key])[key].state_dict())


PEERS: dict[str, type[Peer]] = {"stylegan3": NvLabs, "stylegan2-ada": NvLabs, "rosinality": Rosinality}


def load_peer(text: str) -> Peer:
    """The checkout that "name=path" names.

    Raises:
        ValueError: an unknown name, a path that is no folder, or a checkout that cannot be imported.
    """
    name, _, path = text.partition("=")
    if name not in PEERS or not path:
        raise ValueError(f"expected one of {', '.join(f'{known}=PATH' for known in PEERS)}, got {text!r}")
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"{path!r} is no folder")
    try:
        return PEERS[name](name, folder)
    except ImportError as error:
        raise ValueError(f"cannot import {name} from {path}: {error}") from None


@contextmanager
def importing_from(path: Path) -> Iterator[dict[str, types.ModuleType]]:
    """Imports see this folder first. Its modules are forgotten afterwards, as another checkout has the same names, and
    are left in the dictionary that this yields."""
    before, own = set(sys.modules), dict[str, types.ModuleType]()
    sys.path.insert(0, str(path))
    sys.modules.update(_stand_ins())
    try:
        yield own
    finally:
        sys.path.remove(str(path))
        for name in sys.modules.keys() - before:
            if name in STAND_INS or _lies_in(sys.modules[name], path):
                own[name] = sys.modules.pop(name)


def _lies_in(module: types.ModuleType, path: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(place and Path(place).is_relative_to(path) for place in places)


def _stand_ins() -> dict[str, types.ModuleType]:
    """What NVlabs' code imports and need not be here: pkg_resources, which setuptools 82 removed, for one function;
    requests for none."""
    modules = {name: types.ModuleType(name) for name in STAND_INS if importlib.util.find_spec(name) is None}
    for module in modules.values():
        module.parse_version = TorchVersion  # type: ignore[attr-defined]
    return modules


def _module(name: str) -> Any:
    """The module, or None where the checkout has none of this name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            return None
        raise
