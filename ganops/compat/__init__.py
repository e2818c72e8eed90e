"""ganops under existing StyleGAN codebases, and their checkpoints without their code."""

from ._errors import CheckpointError
from ._records import Record
from .checkpoint import load_network_pkl, read_network_pkl

__all__ = ["CheckpointError", "Record", "load_network_pkl", "read_network_pkl"]
