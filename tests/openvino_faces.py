"""Run MobileStyleGAN in the openvino runtime: python openvino_faces.py WEIGHTS INPUT.npz OUTPUT.npz

A process of its own, so that a crash of the runtime is a failing test with a message.
INPUT holds z [N, 512], w_avg [512] and psi; OUTPUT gets w [N, 512] and the images of the truncated w.
"""

import sys
from pathlib import Path

import numpy as np
import openvino


def main(weights: str, source: str, target: str) -> None:
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    mapping, synthesis = (
        core.compile_model(Path(weights) / f"{name}Network.xml", "CPU") for name in ("Mapping", "Synthesis")
    )
    data = np.load(source)
    w = np.concatenate([mapping(z[None])[0] for z in data["z"]])
    truncated = data["w_avg"] + data["psi"] * (w - data["w_avg"])
    images = np.concatenate([synthesis(row[None])[0] for row in truncated.astype(np.float32)])
    np.savez(target, w=w, images=images)


if __name__ == "__main__":
    main(*sys.argv[1:])
