"""Read the constants and the wiring of an OpenVINO IR model (a ``.xml`` and a ``.bin`` file) without OpenVINO.

Only the standard library and numpy are used, nothing in the files is executed, and no path in them is followed.
Everything the files say is checked before it is used, so that a truncated or foreign file ends in a ``ValueError``.
Format: OpenVINO documentation, "Intermediate Representation and Operation Sets", IR version 10.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_XML_BYTES = 4 * 2**20
"""Larger graphs are refused; generators of this family need about half a megabyte."""

MAX_RANK = 8

SUPPORTED_VERSIONS = ("10", "11")

ELEMENT_TYPES = {
    "f16": "<f2",
    "f32": "<f4",
    "f64": "<f8",
    "i8": "<i1",
    "i16": "<i2",
    "i32": "<i4",
    "i64": "<i8",
    "u8": "<u1",
    "u16": "<u2",
    "u32": "<u4",
    "u64": "<u8",
    "boolean": "?",
}

_RESHAPING = ("Reshape", "Squeeze", "Unsqueeze")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """One node of the graph: ``inputs`` are layer ids in port order, ``value`` is a constant's data, else None."""

    id: str
    name: str
    type: str
    inputs: tuple[str, ...]
    value: Array | None


class Graph:
    """The layers of one IR model.

    ``layers`` maps ids to layers in file order, ``constants`` maps names to read-only arrays. A name that is used
    twice is left out of ``constants``; such data, like unnamed data, is found with ``follow`` and ``operand``.
    """

    def __init__(self, source: Path, layers: dict[str, Layer]) -> None:
        self.source = source
        self.layers = layers
        named: dict[str, list[Layer]] = {}
        for layer in layers.values():
            named.setdefault(layer.name, []).append(layer)
        self._named = {name: group[0] for name, group in named.items() if len(group) == 1}
        self.constants = {name: layer.value for name, layer in self._named.items() if layer.value is not None}
        self._consumers: dict[str, list[str]] = {identifier: [] for identifier in layers}
        for layer in layers.values():
            for source_id in layer.inputs:
                self._consumers[source_id].append(layer.id)

    def constant(self, name: str) -> Array:
        """The constant called ``name``; ValueError where the model has none."""
        if name not in self.constants:
            raise ValueError(f"{self.source}: expected one constant named {name!r}")
        return self.constants[name]

    def layer(self, name: str) -> Layer:
        """The layer called ``name``; ValueError where the model has none."""
        if name not in self._named:
            raise ValueError(f"{self.source}: expected one layer named {name!r}")
        return self._named[name]

    def first(self, kind: str) -> Layer:
        """The first layer of a type in file order; ValueError where the model has none."""
        for layer in self.layers.values():
            if layer.type == kind:
                return layer
        raise ValueError(f"{self.source}: expected a layer of type {kind}")

    def follow(self, start: Layer, kind: str) -> Layer:
        """The nearest layer of type ``kind`` downstream of ``start``; ValueError where there is none."""
        seen, queue = {start.id}, deque([start.id])
        while queue:
            for identifier in self._consumers[queue.popleft()]:
                if self.layers[identifier].type == kind:
                    return self.layers[identifier]
                if identifier not in seen:
                    seen.add(identifier)
                    queue.append(identifier)
        raise ValueError(f"{self.source}: expected a {kind} layer downstream of {start.name!r}")

    def operand(self, layer: Layer) -> Array:
        """The one constant among the inputs of ``layer``, also where a reshape stands between; else ValueError."""
        values = [value for value in map(self._constant_behind, layer.inputs) if value is not None]
        if len(values) != 1:
            raise ValueError(f"{self.source}: layer {layer.name!r} has {len(values)} constant inputs, expected one")
        return values[0]

    def _constant_behind(self, identifier: str) -> Array | None:
        layer, seen = self.layers[identifier], {identifier}
        while layer.type in _RESHAPING and layer.inputs and layer.inputs[0] not in seen:
            layer = self.layers[layer.inputs[0]]
            seen.add(layer.id)
        return layer.value


def read_ir(xml_path: str | Path, bin_path: str | Path | None = None) -> Graph:
    """Read a model in OpenVINO IR format.

    Args:
        xml_path: the graph, UTF-8 XML of at most ``MAX_XML_BYTES``.
        bin_path: the constants' data; without it, the file beside ``xml_path`` with the suffix ``.bin``.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a file is truncated, damaged or something else; the text says what was expected.
    """
    xml_path = Path(xml_path)
    root = _parse(xml_path)
    data = (xml_path.with_suffix(".bin") if bin_path is None else Path(bin_path)).read_bytes()
    elements: dict[str, ElementTree.Element] = {}
    for element in root.iterfind("layers/layer"):
        identifier = _attribute(element, "id", xml_path)
        if identifier in elements:
            raise ValueError(f"{xml_path}: layer id {identifier!r} occurs twice")
        elements[identifier] = element
    if not elements:
        raise ValueError(f"{xml_path}: expected layers, found none")
    inputs = _inputs(root, elements.keys(), xml_path)
    return Graph(
        xml_path,
        {
            identifier: Layer(
                id=identifier,
                name=element.get("name", ""),
                type=_attribute(element, "type", xml_path),
                inputs=tuple(inputs[identifier][port] for port in sorted(inputs[identifier])),
                value=_constant(element, data, xml_path) if element.get("type") == "Const" else None,
            )
            for identifier, element in elements.items()
        },
    )


def _parse(path: Path) -> ElementTree.Element:
    if path.stat().st_size > MAX_XML_BYTES:
        raise ValueError(f"{path}: expected an OpenVINO IR graph of at most {MAX_XML_BYTES} bytes")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected an OpenVINO IR graph in UTF-8 ({error})") from None
    # Entities are how a small XML file becomes gigabytes or reads other files; IR has no use for them.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path}: document type and entity declarations are refused")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: expected an OpenVINO IR graph in XML ({error})") from None
    if root.tag != "net" or root.get("version") not in SUPPORTED_VERSIONS:
        found = f"<{root.tag} version={root.get('version')!r}>"
        raise ValueError(f"{path}: expected <net> of version {' or '.join(SUPPORTED_VERSIONS)}, found {found}")
    return root


def _inputs(root: ElementTree.Element, known: Iterable[str], path: Path) -> dict[str, dict[int, str]]:
    """For every layer, the id of the layer that feeds each port."""
    inputs: dict[str, dict[int, str]] = {identifier: {} for identifier in known}
    for edge in root.iterfind("edges/edge"):
        source, target = _attribute(edge, "from-layer", path), _attribute(edge, "to-layer", path)
        port = _integer(_attribute(edge, "to-port", path), "to-port", path)
        if source not in inputs or target not in inputs:
            raise ValueError(f"{path}: an edge joins {source!r} and {target!r}, expected ids of layers")
        if port in inputs[target]:
            raise ValueError(f"{path}: port {port} of layer {target!r} has two edges, expected one")
        inputs[target][port] = source
    return inputs


def _constant(element: ElementTree.Element, data: bytes, path: Path) -> Array:
    name = element.get("name", "")
    attributes = element.find("data")
    if attributes is None:
        raise ValueError(f"{path}: constant {name!r} has no <data>")
    element_type = _attribute(attributes, "element_type", path)
    if element_type not in ELEMENT_TYPES:
        raise ValueError(f"{path}: constant {name!r} is of type {element_type!r}, expected {', '.join(ELEMENT_TYPES)}")
    dtype = np.dtype(ELEMENT_TYPES[element_type])
    dims = _attribute(attributes, "shape", path)
    shape = tuple(_integer(dim.strip(), f"shape of {name!r}", path) for dim in dims.split(",")) if dims.strip() else ()
    if len(shape) > MAX_RANK:
        raise ValueError(f"{path}: constant {name!r} has {len(shape)} axes, expected at most {MAX_RANK}")
    offset = _integer(_attribute(attributes, "offset", path), f"offset of {name!r}", path)
    size = _integer(_attribute(attributes, "size", path), f"size of {name!r}", path)
    if math.prod(shape) * dtype.itemsize != size or size == 0:
        raise ValueError(f"{path}: constant {name!r} of type {element_type}, shape {shape} cannot take {size} bytes")
    if offset + size > len(data):
        have = f"the .bin file has {len(data)} bytes"
        raise ValueError(f"{path}: constant {name!r} ends at byte {offset + size}, but {have}; is it truncated?")
    return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)


def _attribute(element: ElementTree.Element, name: str, path: Path) -> str:
    value = element.get(name)
    if value is None:
        raise ValueError(f"{path}: expected attribute {name!r} in <{element.tag}>")
    return value


def _integer(text: str, what: str, path: Path) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError(f"{path}: {what} is {text[:40]!r}, expected a non-negative integer")
    return int(text)
