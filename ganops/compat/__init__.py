"""ganops under existing StyleGAN codebases, and their checkpoints without their code."""

from ._errors import CheckpointError
from ._records import Record
from .checkpoint import load_network_pkl, read_network_pkl
from .convert import load_network, save_network, save_network_pkl
from .rosinality import load_rosinality

__all__ = [
    "CheckpointError",
    "Record",
    "load_network",
    "load_network_pkl",
    "load_rosinality",
    "read_network_pkl",
    "save_network",
    "save_network_pkl",
]
