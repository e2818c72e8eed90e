"""Records what ``python -m ganops bench --model`` computes with: counts of launches, and the mix of machine code.

python tests/modelled_counts.py --record   writes ganops/bench/counted.json; some minutes

Launches are counted in float16, on a layer's own image with few channels: planes are independent. The emulated GPU has
one multiprocessor, so that images are cut into no more blocks than they would be with all channels.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from typing import Any

import nvcc
import torch
from simt_ops import emulated_ops

import ganops
from ganops.bench.calls import Call
from ganops.bench.modelled import COUNTED, key, layers

NETWORKS = ("sg2-256", "sg3t-256", "sg3r-256")
FEW_CHANNELS = 2
A100 = 80, 108, 163 * 1024
KINDS = {"arithmetic": ("FFMA", "FADD", "FMUL"), "mma": ("HMMA",)}


def calls() -> dict[str, Call]:
    """A call of each kind and size, without convolutions."""
    found: dict[str, Call] = {}
    for name in NETWORKS:
        for call in layers(name):
            if not call.weight:
                found.setdefault(key(call), call)
    return found


def with_few_channels(call: Call) -> Call:
    n, _, *size = call.shapes["x"]
    shapes = {name: (FEW_CHANNELS,) for name in call.shapes if name == "b"}
    return replace(call, shapes={"x": (n, FEW_CHANNELS, *size), **shapes})


def count(call: Call) -> dict[str, Any]:
    """A layer's entry in counted.json."""
    emulator = emulated_ops("simt")
    emulator.configure()
    emulator.set_device(A100[0], 1, A100[2])
    emulator.clear()
    with ganops.backend("simt"):
        y = call.run(call.tensors(torch.float16))
    emulator.set_device(*A100)
    launches = [
        {
            "kernel": nvcc.readable_name(launch.kernel),
            "bytes": sum(buffer.bytes_read + buffer.bytes_written for buffer in launch.buffers),
            "wavefronts": launch.counters["shared_wavefronts"],
            "mma_macs": launch.counters["mma_macs"],
        }
        for launch in emulator.launches()
    ]
    side = round(math.sqrt(math.prod(y.shape[2:])))
    return {"op": call.op, "kind": call.kind, "side": side, "outputs": y.numel(), "launches": launches}


def mix(kernels: set[str]) -> dict[str, dict[str, dict[str, float]]]:
    """The shares of arithmetic, and of tensor cores' products, in the machine code of kernels, by architecture."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for instance in nvcc.instances():
        if instance.name in kernels:
            of = {kind: sum(instance.instructions[name] for name in names) for kind, names in KINDS.items()}
            shares = {kind: round(count / instance.instructions.total(), 4) for kind, count in of.items()}
            found.setdefault(instance.name, {})[instance.architecture] = shares
    return dict(sorted(found.items()))


def record() -> dict[str, Any]:
    counted = {name: count(with_few_channels(call)) for name, call in calls().items()}
    kernels = {launch["kernel"] for entry in counted.values() for launch in entry["launches"]}
    return {"kernels": mix(kernels), "layers": counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", required=True)
    parser.parse_args()
    torch.set_num_threads(1)
    COUNTED.write_text(json.dumps(record(), indent=1) + "\n")


if __name__ == "__main__":
    main()
