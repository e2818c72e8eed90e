"""From a record of a network to the network: a class of ``ganops.models``, its arguments, its tensors."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._errors import CheckpointError, shortened
from ._records import Record

MODELS = ("stylegan2.Generator", "stylegan2.Discriminator", "stylegan3.Generator")
"""Classes of ganops.models that checkpoints are loaded into."""

CONFIG = "checkpoint_config"
"""Attribute of a loaded network: its NetworkConfig."""

MAX_ARGUMENT = 2**20
MAX_ARGUMENTS = 1000


@dataclass(frozen=True)
class NetworkConfig:
    """What makes a network: the class in ganops.models, such as "stylegan3.Generator", and its keyword arguments.

    ``name`` is what its checkpoint calls it, such as "G_ema".
    """

    model: str
    kwargs: dict[str, Any]
    name: str

    def to_json(self) -> str:
        return json.dumps({"model": self.model, "kwargs": self.kwargs, "name": self.name})

    @classmethod
    def from_json(cls, text: str) -> NetworkConfig:
        """Raises CheckpointError if the text is not that of :meth:`to_json`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"its metadata is no JSON: {error}") from None
        if not isinstance(values, dict) or not isinstance(values.get("kwargs"), dict):
            raise CheckpointError("its metadata does not say which network of ganops it is")
        return cls(str(values.get("model")), values["kwargs"], str(values.get("name")))

    def build(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """The network with these parameters and buffers, which it holds itself, without copies.

        Nothing is allocated before names and shapes are known to agree.

        Raises:
            CheckpointError: unknown model, arguments that it does not take, tensors that are not its.
        """
        cls = model_class(self.model)
        check_arguments(self.kwargs, len(tensors))
        try:
            with torch.device("meta"):
                network = cls(**self.kwargs)
        except Exception as error:  # whatever a constructor makes of arguments that a stranger chose
            raise CheckpointError(
                f"ganops.models.{self.model} refuses its arguments: {shortened(str(error), 300)}"
            ) from error
        if difference := compare(tensors, network.state_dict()):
            raise CheckpointError(f"its tensors are not those of ganops.models.{self.model}: {difference}")
        network.load_state_dict(tensors, strict=True, assign=True)
        setattr(network, CONFIG, self)
        return network


def compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """How the names and shapes of tensors differ, in a few words; nothing if they do not."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    shapes = [name for name, tensor in expected.items() if name in found and found[name].shape != tensor.shape]
    numbers = [name for name in expected if name in found and not found[name].is_floating_point()]
    words = []
    if missing:
        words.append(f"{len(missing)} are missing, such as {missing[0]}")
    if unknown:
        words.append(f"{len(unknown)} are unknown, such as {shortened(unknown[0])}")
    if shapes:
        name = shapes[0]
        wanted = f"{name} has {list(found[name].shape)} for {list(expected[name].shape)}"
        words.append(f"{len(shapes)} have another shape, such as {wanted}")
    if numbers:
        words.append(f"{len(numbers)} are {found[numbers[0]].dtype}, such as {numbers[0]}")
    return "; ".join(words)


def model_class(model: str) -> type[nn.Module]:
    if model not in MODELS:
        raise CheckpointError(f"model {shortened(model)} is none of {', '.join(MODELS)}")
    module, name = model.split(".")
    cls: type[nn.Module] = getattr(importlib.import_module(f"ganops.models.{module}"), name)
    return cls


def check_arguments(kwargs: Mapping[str, Any], tensors: int) -> None:
    """Refuses arguments that would make a constructor take for ever: there are no more layers than tensors."""
    waiting, count = [("kwargs", kwargs)], 0
    while waiting:
        name, value = waiting.pop()
        count += 1
        if count > MAX_ARGUMENTS:
            raise CheckpointError(f"its constructor has more than {MAX_ARGUMENTS} arguments")
        if isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, list | tuple):
            waiting += zip(itertools.repeat(name), value)
        elif isinstance(value, int) and abs(value) > (tensors if name == "num_layers" else MAX_ARGUMENT):
            raise CheckpointError(f"argument {shortened(name)} of its constructor is {value}, which is too large")
        elif not isinstance(value, int | float | str | type(None)):
            raise CheckpointError(f"argument {shortened(name)} of its constructor is a {type(value).__name__}")


def model_of(record: Record) -> str | None:
    """The model that a record is of, by its class and the names of its blocks; None for what ganops does not know."""
    synthesis = record.children.get("synthesis", Record("")).children
    if record.class_name == "Generator" and "input" in synthesis:
        return "stylegan3.Generator"
    if record.class_name == "Generator" and "b4" in synthesis:
        return "stylegan2.Generator"
    if record.class_name == "Discriminator" and "b4" in record.children:
        return "stylegan2.Discriminator"
    return None


def build_record(record: Record, name: str) -> nn.Module | Record:
    """The network that a record of this name describes; the record, if ganops has no such model."""
    model = model_of(record)
    if model is None:
        return record
    tensors = record.state_dict()
    requires_grad = {name: tensor.requires_grad for name, tensor in tensors.items()}  # which loading changes
    network = NetworkConfig(model, arguments(record, model), name).build(tensors)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(requires_grad[name])
    return network.train(record.state.get("training") is True)


def arguments(record: Record, model: str) -> dict[str, Any]:
    """Keyword arguments that make the network of a record: those it was made with, and its codebase's defaults.

    Raises:
        CheckpointError: the model takes no such arguments.
    """
    signature = inspect.signature(model_class(model))
    try:
        bound = signature.bind(*record.init_args, **record.init_kwargs)
    except TypeError as error:
        raise CheckpointError(f"ganops.models.{model}: {error}") from None
    recorded = defaults(record)
    kwargs: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if name in ("mapping_kwargs", "synthesis_kwargs") and not isinstance(value, dict):
            raise CheckpointError(f"{name} of its constructor is a {type(value).__name__}, expected a dict")
        if name == "mapping_kwargs":
            value = {**recorded.get(name, {}), **value}
        spread = name == "synthesis_kwargs" or signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        kwargs.update(value if spread else {name: value})
    return {**recorded, **kwargs}


def defaults(record: Record) -> dict[str, Any]:
    """Arguments whose default differs between StyleGAN2-ADA, StyleGAN3 and forks, as the modules recorded them."""
    recorded: dict[str, Any] = {}
    mapping = record.children.get("mapping")
    if record.class_name == "Generator" and mapping and "w_avg_beta" in mapping.state:
        recorded["mapping_kwargs"] = {"w_avg_beta": mapping.state["w_avg_beta"]}
    blocks = record.children.get("synthesis", record).children
    if "b4" in blocks:
        recorded["num_fp16_res"] = sum(block.state.get("use_fp16") is True for block in blocks.values())
        layers = blocks["b4"].children  # toRGB in a generator of any architecture but resnet, conv in the rest
        last = layers.get("torgb", layers.get("conv", layers.get("conv1", Record(""))))
        recorded["conv_clamp"] = last.state.get("conv_clamp")
    return recorded
