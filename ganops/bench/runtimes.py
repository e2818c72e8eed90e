"""Runtimes that take an exported network: ONNX Runtime and OpenVINO, where they are installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ganops

from .networks import Network

RUNTIMES = ("openvino", "onnxruntime")
OPSET = 18


def missing(name: str) -> str | None:
    """Why this runtime cannot be used here; None if it can."""
    needed = {"openvino": ["openvino", "onnx", "onnxscript"], "onnxruntime": ["onnxruntime", "onnx", "onnxscript"]}
    absent = [module for module in needed[name] if find_spec(module) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def function(name: str, network: Network, module: nn.Module, z: Tensor) -> Callable[[], Any]:
    """A function that exports the network at its first call and runs the runtime at each."""
    session: list[Callable[[], Any]] = []

    def run() -> Any:
        if not session:
            session.append(_SESSIONS[name](network, module, z))
        return session[0]()

    return run


class _Exported(nn.Module):
    """The network by plain PyTorch, with z as its only argument."""

    def __init__(self, network: Network, module: nn.Module) -> None:
        super().__init__()
        self.network, self.module = network, module

    def forward(self, z: Tensor) -> Tensor:
        return self.network.forward(self.module, z)


def export(network: Network, module: nn.Module, z: Tensor, folder: Path) -> Path:
    """Writes the network as an ONNX file, with the references in place of kernels."""
    path = folder / "network.onnx"
    with ganops.backend("reference"), torch.no_grad():
        torch.onnx.export(
            _Exported(network, module).eval(), (z,), str(path), dynamo=True, opset_version=OPSET, verbose=False
        )
    return path


def _onnxruntime(network: Network, module: nn.Module, z: Tensor) -> Callable[[], Any]:
    import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    with tempfile.TemporaryDirectory() as folder:
        path = export(network, module, z, Path(folder))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: z.numpy()}
    return lambda: session.run(None, inputs)[0]


def _openvino(network: Network, module: nn.Module, z: Tensor) -> Callable[[], Any]:
    import openvino  # type: ignore[import-not-found,import-untyped,unused-ignore]

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()})
    if network.family == "mobile_stylegan":
        from ..models.mobile_stylegan import find_weights

        mapping, synthesis = (
            core.compile_model(find_weights() / f"{part}Network.xml", "CPU") for part in ("Mapping", "Synthesis")
        )
        return lambda: synthesis(mapping(z.numpy())[0])[0]
    with tempfile.TemporaryDirectory() as folder:
        compiled = core.compile_model(export(network, module, z, Path(folder)), "CPU")
    return lambda: compiled(z.numpy())[0]


_SESSIONS = {"onnxruntime": _onnxruntime, "openvino": _openvino}
