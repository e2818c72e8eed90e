"""What is timed: operators on the layers of networks, and whole networks, each by several implementations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import ganops

from . import runtimes
from .calls import Call
from .machine import Peaks
from .networks import NETWORKS, Network, traced
from .peers import Peer

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
# A backward pass reads the gradient and writes as many as there are inputs; products have two gradients.
BACKWARD_BYTES, BACKWARD_FLOPS, BACKWARD_PRODUCT_FLOPS = 2, 2, 3

Functions = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Settings:
    """What the user chose for all jobs."""

    device: str = "cpu"
    dtype: str = "float32"
    backward: bool = False
    implementations: Sequence[str] = ()
    peers: Sequence[Peer] = ()

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def kind(self) -> str:
        return "forward+backward" if self.backward else "forward"


@dataclass
class Job:
    """One line of the table. ``work`` is a list of (FLOPs, bytes), each of which has a floor; they follow each other.

    ``prepare`` makes the functions to time, by implementation; what they hold is freed after them. ``count`` tells how
    often a network does this, ``group`` the sum that it belongs to, ``series`` the curve that it is a point of.
    """

    name: str
    shape: Sequence[int]
    dtype: str
    kind: str
    work: Sequence[tuple[float, float]]
    prepare: Callable[[], Functions]
    group: str = ""
    count: int = 1
    series: str = ""
    beside: Sequence[str] = ()  # implementations that this job has alone

    @property
    def flops(self) -> float:
        return sum(flops for flops, _ in self.work)

    @property
    def bytes(self) -> float:
        return sum(moved for _, moved in self.work)

    def floor_ms(self, peaks: Peaks) -> float:
        return sum(peaks.floor_ms(flops, moved) for flops, moved in self.work)


def native(device: str) -> str:
    """The implementation that this package brings for the device."""
    return "cuda" if device == "cuda" else "cpu"


def operator_jobs(network_names: Iterable[str], settings: Settings, batch: int = 1) -> list[Job]:
    """Every call of an operator that these networks make, those of equal work once for each network."""
    jobs = []
    for name in network_names:
        calls = traced(name, batch).calls
        counts = Counter(call.key for call in calls)
        first = {call.key: call for call in reversed(calls)}
        jobs += [
            operator_job(call, settings, f"{name} {call.op}", counts[call.key])
            for call in sorted(first.values(), key=calls.index)
        ]
    return jobs


def operator_job(call: Call, settings: Settings, group: str = "", count: int = 1) -> Job:
    def prepare() -> Functions:
        tensors = call.tensors(settings.torch_dtype, settings.device, settings.backward)
        functions: Functions = {}
        for name in settings.implementations:
            if name == "compile":
                functions[name] = _compiled(lambda: call.run(tensors), tensors, settings.backward)
            elif name in ("reference", native(settings.device)):
                functions[name] = _operator(name, lambda: call.run(tensors), tensors, settings.backward)
        for peer in settings.peers:
            if run := peer.operator(call):
                functions[peer.name] = _operator("auto", partial(run, tensors), tensors, settings.backward)
        return functions

    size = settings.torch_dtype.itemsize
    flops, products = call.flops(), call.product_flops()
    work = (flops, call.elements() * size)
    if settings.backward:
        work = (
            BACKWARD_FLOPS * (flops - products) + BACKWARD_PRODUCT_FLOPS * products,
            BACKWARD_BYTES * call.elements() * size,
        )
    name = f"{call} ({call.kind})"
    return Job(name, call.shapes["x"], settings.dtype, settings.kind, [work], prepare, group, count)


def _operator(backend: str, run: Callable[[], Tensor], tensors: dict[str, Tensor], backward: bool) -> Callable[[], Any]:
    def function() -> Tensor:
        with ganops.backend(backend):
            if not backward:
                with torch.no_grad():
                    return run()
            y = run()
            inputs = [tensor for tensor in tensors.values() if tensor.requires_grad]
            torch.autograd.grad(y, inputs, y.detach(), allow_unused=True)
            return y.detach()

    return function


def _compiled(run: Callable[[], Tensor], tensors: dict[str, Tensor], backward: bool) -> Callable[[], Any]:
    """torch.compile of the reference; compiled by the first call."""
    torch._dynamo.reset()
    return _operator("reference", torch.compile(run, dynamic=False), tensors, backward)


def network_jobs(network_names: Iterable[str], settings: Settings, batch: int = 1) -> list[Job]:
    return [network_job(NETWORKS[name], settings, batch) for name in network_names]


def network_job(
    network: Network,
    settings: Settings,
    batch: int = 1,
    variant: str = "",
    dtype: torch.dtype | None = None,
    precision: str = "",
) -> Job:
    """A forward pass, in which all implementations have the same weights and noise.

    A variant computes its feature maps in another dtype, or with another torch.set_float32_matmul_precision, and has
    the network without that beside it.
    """

    def prepare() -> Functions:
        module = network.build()
        z = torch.randn(network.input_shape(batch), generator=torch.Generator().manual_seed(0))
        z = z.to(settings.device, settings.torch_dtype)
        theirs: Functions = {}
        for peer in sorted(settings.peers, key=lambda peer: not peer.gives_weights):
            try:
                theirs |= _peer(peer, network, module, z)
            except Exception as error:  # of the peer's code, which may not run here
                theirs[peer.name] = _raising(error)
        module = module.to(settings.device, settings.torch_dtype)
        ours: Functions = {}
        for name in settings.implementations:
            if name == "compile":
                torch._dynamo.reset()
                ours[name] = _network("reference", network, torch.compile(module, dynamic=False), z)
            elif name in runtimes.RUNTIMES:
                ours[name] = runtimes.function(name, network, module, z)
            elif variant and name == native(settings.device):
                ours[settings.dtype] = _network(name, network, module, z)
                ours[name] = _with_precision(precision, _network(name, network, module, z, dtype))
            elif name in ("reference", native(settings.device)):
                ours[name] = _network(name, network, module, z)
        return {**ours, **theirs}

    size = settings.torch_dtype.itemsize
    known = traced(network.name, batch)
    work = [(float(call.flops()), float(call.elements() * size)) for call in known.calls]
    work.append((known.other_flops, known.parameters * size))
    shape = network.input_shape(batch)
    beside = [settings.dtype] if variant else []
    return Job(network.name + variant, shape, settings.dtype, "forward", work, prepare, beside=beside)


def _peer(peer: Peer, network: Network, module: nn.Module, z: Tensor) -> Functions:
    """Its network, with the weights that ours has afterwards."""
    theirs = peer.network(network)
    if theirs is None:
        return {}
    peer.share_weights(network, theirs, module)
    theirs = theirs.eval().to(z)
    return {peer.name: _no_grad(lambda: peer.forward(network, theirs, z))}


def _raising(error: Exception) -> Callable[[], Any]:
    def run() -> Any:
        raise error

    return run


def _no_grad(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad():
            return function()

    return run


def _network(
    backend: str, network: Network, module: Any, z: Tensor, dtype: torch.dtype | None = None
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with ganops.backend(backend), torch.no_grad():
            return network.forward(module, z, **({"dtype": dtype} if dtype else {}))

    return run


def _with_precision(precision: str, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return function()
        finally:
            torch.set_float32_matmul_precision(before)

    return run if precision else function
