"""Files that would run code, exhaust memory or never end are refused, each with the one error and a reason."""

import builtins
import contextlib
import functools
import importlib
import io
import operator
import os
import pickle
import subprocess
import time
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_pickles import DISCRIMINATOR, GENERATOR2, GENERATOR3, Call, EasyDict, Persistent, dumps, network
from network_pickles import storage_payload as payload
from torch import nn

from ganops.compat import CheckpointError, load_network_pkl
from ganops.models import stylegan2, stylegan3

FEW_SECONDS = 5
LONGEST_MESSAGE = 1000


def refused(data: bytes, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=reason) as error:
        load_network_pkl(io.BytesIO(data))
    assert time.monotonic() - started < FEW_SECONDS
    assert len(str(error.value)) < LONGEST_MESSAGE


def calls(canary: str) -> dict[str, Call]:
    """Calls that write a file, and others that a reader of networks has no use for."""
    write = f"open({canary!r}, 'w')"
    return {
        "os.system": Call(os.system, f"touch {canary}"),
        "eval": Call(eval, write),
        "exec": Call(exec, write),
        "open": Call(open, canary, "w"),
        "getattr": Call(getattr, "torch", "load"),
        "__import__": Call(builtins.__import__, "this"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", canary]),
        "importlib": Call(importlib.import_module, "this"),
        "attrgetter": Call(operator.attrgetter, "system"),
        "partial": Call(functools.partial, os.system, f"touch {canary}"),
        "SimpleNamespace": Call(types.SimpleNamespace, state={"x": 1}),
        "torch.load": Call(torch.load, canary),
        "torch.hub.load": Call(torch.hub.load, "owner/name", "model"),
        "torch.compile": Call(torch.compile, None),
        "a quantised tensor": Call(torch._utils._rebuild_qtensor, 2**40),
        "numpy.load": Call(np.load, canary, None, True),
        "numpy.save": Call(np.save, canary, 1),
        "numpy.memmap": Call(np.memmap, canary, "int8", "w+"),
        "bytearray": Call(bytearray, 2**40),
        "range": Call(range, 2**40),
        "pickle.loads": Call(pickle.loads, b"N."),
        "a network's class": Call(nn.Linear, 2**20, 2**20),
        "a size of a list": Call(torch.Size, [1, 2]),
        "set of lists": Call(set, [[]]),
        "set of a number": Call(set, 2**40),
        "state of a set": Call(set, [], state={"x": 1}),
        "an object array": Call(np.dtype, "O"),
        "a structured array": Call(np.dtype, [("x", "f4")]),
        "_codecs": Call(__import__("_codecs").encode, "x", "latin1"),
    }


@pytest.mark.parametrize("name", calls(""))
def test_calls_are_refused(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for protocol in (2, 3, 4, 5):
        refused(dumps({"G_ema": calls(str(canary))[name]}, protocol), "byte .* of the pickle")
    assert not canary.exists()


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


ORDERED_DICT = named("collections", "OrderedDict")
PROGRAMS = {
    "GLOBAL": b"cposix\nsystem\n\x8c\x01x\x85R.",
    "an attribute of a module": named("torch", "serialization.os.system") + text("x") + b"\x85R.",
    "an attribute of an inert class": named("torch.nn.modules.linear", "Linear.__init__") + b")\x81.",
    "a call of an inert class": named("training.networks", "Generator") + b")R.",
    "a call of what was made": named("dnnlib.util", "EasyDict") + b")\x81)R.",
    "a call of text": text("eval") + b")R.",
    "arguments that are no tuple": ORDERED_DICT + b"]R.",
    "items of an OrderedDict": ORDERED_DICT + b"]\x85R.",
    "INST": b"(\x8c\x01xiposix\nsystem\n.",
    "OBJ": b"(" + named("posix", "system") + text("x") + b"o.",
    "OBJ of a known class": b"(" + named("dnnlib.util", "EasyDict") + b"o.",
    "NEWOBJ": named("subprocess", "Popen") + text("x") + b"\x85\x81.",
    "NEWOBJ of a value": b"N)\x81.",
    "NEWOBJ_EX": named("dnnlib.util", "EasyDict") + b")}\x92.",
    "BUILD of a name": ORDERED_DICT + b"}b.",
    "BUILD of slots": ORDERED_DICT + b"N}\x86b.",
    "BUILD of a list": b"]}b.",
    "items of a name": ORDERED_DICT + b"NNs.",
    "items of a record": named("training.a", "B") + b")\x81NNs.",
    "append to a name": ORDERED_DICT + b"Na.",
    "append to a tuple": b")Na.",
    "EXT1": b"\x82\x01.",
    "EXT2": b"\x83\x01\x00.",
    "EXT4": b"\x84\x01\x00\x00\x00.",
    "PERSID": b"Pname\n.",
    "BINPERSID": b"NQ.",
    "buffers": b"\x97.",
    "Python 2's strings": b"S'x'\n.",
    "an unknown opcode": b"\xff.",
    "a name that is no text": b"NN\x93.",
    "a name over several lines": b"cposix" + 5000 * b"x" + b"\nsystem\n.",
    "an empty stack": b".",
    "a full stack": b"NN.",
    "a mark": b"}(.",
    "no mark": b"Nt.",
    "pop below a mark": b"N(0.",
    "a memo that is empty": b"h\x05.",
    "a long number": b"}" + text("x") + b"\x8b" + (4000).to_bytes(4, "little") + 4000 * b"\x7f" + b"s.",
    "a long number in digits": b"}" + text("x") + b"L" + 4000 * b"9" + b"L\ns.",
    "a name alone": b"}" + text("x") + named("posix", "system") + b"s.",
    "a long name": b"X" + (10**6).to_bytes(4, "little") + 10**6 * b"m" + text("n") + b"\x93.",
    "a key without a value": b"}(Nu.",
    "a list as a key": b"}]Ns.",
    "BINBYTES of 2 GiB": b"B\xff\xff\xff\x7f.",
    "BINBYTES8 of 1 EiB": b"\x8e" + (2**60).to_bytes(8, "little") + b".",
    "BINUNICODE8 of 1 EiB": b"\x8d" + (2**60).to_bytes(8, "little") + b".",
    "BYTEARRAY8 of 1 EiB": b"\x96" + (2**60).to_bytes(8, "little") + b".",
    "BINBYTES8 of 16 EiB": b"\x8e" + 8 * b"\xff" + b".",
    "LONG4 of 2 GiB": b"\x8b\xff\xff\xff\x7f.",
    "LONG4 of a negative size": b"\x8b\xff\xff\xff\xff.",
    "FRAME of 1 EiB": b"\x95" + (2**60).to_bytes(8, "little") + b"}.",
    "trailing data": b"}.}.",
    "an HTML page": b"<!DOCTYPE html><html>",
    "nothing": b"",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_refused(name: str) -> None:
    refused(b"\x80\x05" * bool(PROGRAMS[name]) + PROGRAMS[name], r"the checkpoint: \w")


def test_a_memo_index_allocates_nothing() -> None:
    with pytest.raises(CheckpointError, match="holds a NoneType"):
        load_network_pkl(io.BytesIO(b"\x80\x04Nr\xff\xff\xff\x7f."))


@pytest.mark.parametrize("use", [b"}h\x3cNs.", b"\x8f(h\x3c\x90.", b"(h\x3c\x91."])
def test_keys_whose_hash_takes_for_ever(use: bytes) -> None:
    tuples = b")\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(60))
    refused(b"\x80\x04" + tuples + use, "a tuple is used as a key")


def test_deep_nesting_is_only_deep() -> None:
    deep = 10**5
    loaded = load_network_pkl(io.BytesIO(b"\x80\x04}" + text("x") + b")" + deep * b"\x85" + b"s."))
    assert list(loaded) == ["x"]


def test_other_records_are_refused() -> None:
    nested: tuple[Any, ...] = ()
    for _ in range(60):
        nested = nested, nested
    for meta, reason in (
        ({"version": 5}, "version 5, expected 6"),
        ({"version": nested}, "version <tuple>, expected 6"),
        ({"class_name": nested}, "lacks its class_name, state or module_src"),
        ({"type": "function"}, "another type than 'class'"),
        ({"class_name": 3}, "lacks its class_name, state or module_src"),
        ({"state": None}, "lacks its class_name, state or module_src"),
    ):
        record = Persistent("Generator", {})
        record.meta.update(meta)
        refused(dumps({"G_ema": record}), reason)


def with_modules(modules: dict[str, Any]) -> Persistent:
    return Persistent("Generator", {"_modules": modules})


def test_modules_that_are_too_many() -> None:
    """Each holds the one before twice, or all hold one another."""
    wide = deep = with_modules({})
    for _ in range(28):
        wide = with_modules({"a": wide, "b": wide})
    for _ in range(40):
        deep = with_modules({"a": deep})
    many = Persistent("Generator", {"_parameters": dict.fromkeys(map(str, range(2000)))})
    long = Persistent("Generator", {"_parameters": {10**6 * "x": None}})
    hidden = Persistent("Generator", {"_non_persistent_buffers_set": "text", "_buffers": {"x": None}})
    for module in (many, long, hidden):
        generator = with_modules({"synthesis": with_modules({"b4": module})})
        refused(dumps({"G_ema": generator}), "is no dict of up to 1000 names|is no set")
    for module in (wide, deep):
        refused(
            dumps({"G_ema": with_modules({"synthesis": with_modules({"b4": module})})}), "modules inside one another"
        )


@pytest.mark.parametrize(
    ("cls", "change", "reason"),
    [
        (stylegan2.Generator, {"mapping_kwargs": {"num_layers": 10**9}}, "argument 'num_layers' .* too large"),
        (stylegan2.Generator, {"img_resolution": 2**40}, "argument 'img_resolution' .* too large"),
        (stylegan2.Generator, {"img_resolution": 2**20}, "refuses its arguments"),
        (stylegan2.Generator, {"img_resolution": 32}, "tensors are not those of ganops.models.stylegan2.Generator"),
        (stylegan2.Generator, {"channel_max": 2**20, "channel_base": 2**20}, "tensors are not those of"),
        (stylegan2.Generator, {"w_dim": "8"}, "refuses its arguments"),
        (stylegan2.Generator, {"device": "cuda"}, "refuses its arguments"),
        (stylegan2.Generator, {"synthesis_kwargs": 3}, "synthesis_kwargs of its constructor is a int"),
        (stylegan2.Generator, {"mapping_kwargs": [1]}, "mapping_kwargs of its constructor is a list"),
        (stylegan2.Generator, {"resample_filter": [1.0] * 2000}, "more than 1000 arguments"),
        (stylegan2.Generator, {"w_dim": torch.ones(3)}, "argument 'w_dim' .* is a Tensor"),
        (stylegan3.Generator, {"num_layers": 10**6}, "argument 'num_layers' .* too large"),
        (stylegan3.Generator, {"filter_size": 2**20, "use_radial_filters": True}, "tensors are not those of"),
        (stylegan3.Generator, {"first_stopband": float("inf")}, "refuses its arguments"),
        (stylegan3.Generator, {"first_cutoff": float("nan")}, "refuses its arguments"),
        (stylegan2.Discriminator, {"img_resolution": -16}, "refuses its arguments"),
    ],
)
def test_arguments_that_do_not_fit_the_tensors(cls: type[nn.Module], change: dict[str, Any], reason: str) -> None:
    kwargs = {stylegan2.Generator: GENERATOR2, stylegan3.Generator: GENERATOR3}.get(cls, DISCRIMINATOR)
    changed = network(cls, kwargs)
    changed._kwargs = {**kwargs, **change}
    refused(dumps({"G_ema": changed}), f"the checkpoint: 'G_ema': .*{reason}")


def test_missing_and_unknown_tensors() -> None:
    changed = network(stylegan2.Generator, GENERATOR2)
    del changed.synthesis.b8.conv0.bias
    refused(dumps({"G_ema": changed}), "1 are missing, such as synthesis.b8.conv0.bias")
    changed.synthesis.b8.conv0.bias = nn.Parameter(torch.ones(8))
    changed.synthesis.extra = nn.Parameter(torch.ones(1))
    refused(dumps({"G_ema": changed}), "1 are unknown, such as 'synthesis.extra'")


def test_tensors_of_another_type() -> None:
    changed = network(stylegan2.Generator, GENERATOR2)
    changed.synthesis.b4.const = nn.Parameter(torch.ones(8, 4, 4, dtype=torch.int64), requires_grad=False)
    refused(dumps({"G_ema": changed}), "1 are torch.int64, such as synthesis.b4.const")


def tensor_of(data: bytes, *view: Any) -> bytes:
    storage = Call(torch.storage._load_from_bytes, data)
    return dumps({"x": Call(torch._utils._rebuild_tensor_v2, storage, *view, False, None)})


STORED = torch.arange(8.0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tensor_of(payload(STORED), 0, (9,), (1,)), "larger than its storage"),
        (tensor_of(payload(STORED), 1, (8,), (1,)), "larger than its storage"),
        (tensor_of(payload(STORED), 0, (2**20, 2**20), (0, 0)), "larger than its storage"),
        (tensor_of(payload(STORED), 0, (2**62, 2**62), (1, 1)), "no short tuple of small integers"),
        (tensor_of(payload(STORED), 0, (2, -1), (1, 1)), "no short tuple of small integers"),
        (tensor_of(payload(STORED), 0, (2,), (2**62,)), "larger than its storage"),
        (tensor_of(payload(STORED), -4, (2,), (1,)), "offset -4"),
        (tensor_of(payload(STORED), 0, 100 * (1,), 100 * (1,)), "no short tuple of small integers"),
        (tensor_of(payload(STORED), 0, (2,), (1, 1)), r"size \[2\], stride \[1, 1\]"),
        (tensor_of(payload(STORED, count=2**60), 0, (2,), (1,)), "declares 8 elements .* bytes"),
        (tensor_of(payload(STORED, count=-1), 0, (2,), (1,)), "declares 8 elements"),
        (tensor_of(payload(STORED, kind="DoubleStorage"), 0, (2,), (1,)), r"\(64 bytes\), and has 32 bytes"),
        (tensor_of(payload(STORED)[:-1], 0, (2,), (1,)), "has 31 bytes"),
        (tensor_of(payload(STORED)[:40], 0, (2,), (1,)), "truncated"),
        (tensor_of(b"", 0, (2,), (1,)), "truncated"),
        (tensor_of(pickle.dumps(calls("x")["os.system"], 2), 0, (2,), (1,)), "storage names .*system"),
        (tensor_of(5 * pickle.dumps(1, 2), 0, (2,), (1,)), "does not begin as a torch.save file does"),
        (dumps({"x": Call(torch._utils._rebuild_tensor_v2, None, 0, (2,), (1,), False, None)}), "no storage"),
        (dumps({"x": Call(torch._utils._rebuild_parameter, None, True, None)}), "a parameter is no tensor"),
        (dumps({"x": Call(torch.storage._load_from_bytes, "text")}), "storage is a str, expected bytes"),
    ],
)
def test_tensors_that_contradict_their_storage(data: bytes, reason: str) -> None:
    refused(data, reason)


def test_zip_archives_are_refused() -> None:
    archive = io.BytesIO()
    torch.save({"G_ema": torch.ones(2)}, archive)
    refused(archive.getvalue(), "is a torch.save or zip file, no network pickle")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(10**7))
    refused(tensor_of(bomb.getvalue(), 0, (2,), (1,)), "storage is a zip archive")


def test_what_is_copied_is_in_the_file() -> None:
    """The pickle holds the bytes once, and wants a thousand copies."""
    stored = payload(torch.ones(10**4))
    tensors = [Call(torch.storage._load_from_bytes, stored) for _ in range(1000)]
    refused(dumps({"x": tensors}), "its tensors are larger than the file")
    data, reconstruct = bytes(10**4), np.ndarray(0).__reduce__()[0]
    state = (1, (10**4,), np.dtype("i1"), False, data)
    arrays = [Call(reconstruct, np.ndarray, (0,), b"b", state=state) for _ in range(1000)]
    refused(dumps({"x": arrays}), "its arrays are larger than the file")
    names = [str(i) for i in range(10**4)]
    refused(dumps({"x": [Call(set, names) for _ in range(1000)]}), "its sets are larger than the file")


def test_arrays_that_contradict_their_bytes() -> None:
    reconstruct = np.ndarray(0).__reduce__()[0]
    for state, reason in (
        ((1, (2**40,), np.dtype("f8"), False, b"12345678"), "byte .*"),
        ((1, (1,), np.dtype("f8"), False, [1]), "no bytes, dtype or order"),
        ((1, (-1,), np.dtype("f8"), False, b""), "no short tuple of small integers"),
        ((1, (1,)), "state of another form"),
    ):
        refused(dumps({"x": Call(reconstruct, np.ndarray, (0,), b"b", state=state)}), reason)
    refused(dumps({"x": Call(reconstruct, EasyDict, (0,), b"b")}), "makes an array of 'dnnlib.util.EasyDict'")
    refused(dumps({"x": Call(np.float64(1).__reduce__()[0], np.dtype("f8"), b"1234")}), "bytes of another length")


SMALL = {
    "G_ema": Persistent("Generator", {"_parameters": {"w": nn.Parameter(torch.arange(4.0))}, "training": True}),
    "array": np.arange(3, dtype=np.int16),
    "number": np.float64(3),
    "names": {"x"},
    "kwargs": EasyDict(x=1, y=(2.5, None, -(2**40))),
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_truncated_at_every_byte(protocol: int) -> None:
    data = dumps(SMALL, protocol)
    assert load_network_pkl(io.BytesIO(data)).keys() == SMALL.keys()
    for end in range(len(data)):
        refused(data[:end], "the checkpoint: byte .* of the pickle")


@pytest.fixture(scope="module")
def generator_pickle() -> bytes:
    return dumps({"G_ema": network(stylegan3.Generator, GENERATOR3)})


@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_raise_nothing_else(generator_pickle: bytes, changes: list[tuple[int, int]]) -> None:
    """Whatever a damaged file does, it loads, or the error is ours."""
    small = dumps(SMALL)
    for original in (generator_pickle, small):
        data = bytearray(original)
        for position, value in changes:
            data[position % len(data)] = value
        try:
            load_network_pkl(io.BytesIO(bytes(data)))
        except CheckpointError as error:
            assert len(str(error)) < LONGEST_MESSAGE


@given(st.binary(max_size=200))
def test_random_programs_raise_nothing_else(program: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        load_network_pkl(io.BytesIO(b"\x80\x04" + program + b"."))


def test_tensorflow_pickles_say_what_to_do() -> None:
    made = named("dnnlib.tflib.network", "Network") + b")\x81}" + text("version") + b"K\x04sb"
    refused(b"\x80\x03" + 3 * made + b"\x87.", "TensorFlow pickle of StyleGAN or StyleGAN2; convert it once.*legacy.py")
