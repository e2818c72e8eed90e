"""Which jobs a suite has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from . import machine
from .jobs import Functions, Job, Settings, network_job, network_jobs, operator_job, operator_jobs
from .networks import NETWORKS, traced
from .parts import parts_of
from .scaling import scaling_jobs
from .training import training_jobs

FAMILIES = ("sg2", "sg2-d", "sg3t", "sg3r")
NETWORK_NAMES = [f"{family}-{size}" for size in (256, 1024) for family in FAMILIES]
QUICK_NETWORKS = [f"{family}-64" for family in FAMILIES]
TRAINED_SIZE, TRAINING_BATCH, ALIAS_FREE_BATCH = 64, 4, 2


def jobs(suite: str, settings: Settings, quick: bool, batch: int, words: Sequence[str]) -> list[Job]:
    """The jobs of a suite whose names contain one of the words, or all.

    Raises:
        ValueError: no name does.
    """
    made = _SUITES[suite](settings, quick, batch)
    chosen = [job for job in made if not words or any(word in job.name for word in words)]
    if not chosen:
        raise ValueError(f"--filter: no case is named so; there are: {', '.join(job.name for job in made)}")
    return chosen


def _ops(settings: Settings, quick: bool, batch: int) -> list[Job]:
    return operator_jobs(QUICK_NETWORKS if quick else NETWORK_NAMES, settings, batch)


def _models(settings: Settings, quick: bool, batch: int) -> list[Job]:
    return network_jobs([*(QUICK_NETWORKS if quick else NETWORK_NAMES), "mobile"], settings, batch)


def _training(settings: Settings, quick: bool, batch: int) -> list[Job]:
    made = training_jobs(f"sg2-{TRAINED_SIZE}", batch if batch > 1 else TRAINING_BATCH, settings)
    if quick:
        return made
    return made + training_jobs(f"sg3t-{TRAINED_SIZE}", batch if batch > 1 else ALIAS_FREE_BATCH, settings)


def _scaling(settings: Settings, quick: bool, batch: int) -> list[Job]:
    return scaling_jobs(settings, quick)


def _peers(settings: Settings, quick: bool, batch: int) -> list[Job]:
    """What a reader wants to know first, in minutes: against the peers, networks whole and in parts.

    Networks run by the malloc that the process started with, then by one that keeps freed memory; all else by the
    latter.
    """
    size = 64 if quick else 256
    generators = [f"sg2-{size}", f"sg3t-{size}", f"sg3r-{size}"]
    if not quick:
        generators += ["sg2-1024", "sg2-d-1024", "sg3t-1024"]
    made = network_jobs(generators, settings, batch)
    made += [_keeping(job) for job in network_jobs(generators, settings, batch)]
    alone = replace(settings, peers=())
    for name, options in (("float32 high", {"precision": "high"}), ("bfloat16", {"dtype": torch.bfloat16})):
        made += [_keeping(network_job(NETWORKS[g], alone, batch, f" {name}", **options)) for g in generators]
    openvino = replace(alone, implementations=[*alone.implementations, "openvino"])
    made.append(_keeping(replace(network_job(NETWORKS["mobile"], openvino, batch), beside=["openvino"])))
    if not quick:
        made.append(_keeping(network_job(NETWORKS["sg3r-1024"], alone, batch)))
    parts = [job for job in operator_jobs(generators[1:3], settings, batch) if "filtered_lrelu" in job.group]
    for name in [f"sg2-{size}", f"sg2-d-{size}"]:
        for call in traced(name, batch).calls:
            parts += [operator_job(part, settings, f"{name} {part.op}") for part in parts_of(call)]
    made += [_keeping(job) for job in parts]
    trained = [job for job in _training(settings, quick, 1) if job.name.startswith("sg2") or "G main" in job.name]
    return made + [_keeping(job) for job in trained]


def _keeping(job: Job) -> Job:
    """From here on, malloc keeps what is freed."""

    def prepare() -> Functions:
        machine.keep_freed_memory()
        return job.prepare()

    return replace(job, name=f"{job.name}, malloc keeps", prepare=prepare)


_SUITES = {"ops": _ops, "models": _models, "training": _training, "scaling": _scaling, "peers": _peers}
