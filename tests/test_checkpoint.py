"""Network pickles become networks of ganops, and nothing in them is executed."""

import io
import subprocess
import sys
import urllib.request
import urllib.response
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_pickles import DISCRIMINATOR, GENERATOR2, Call, Persistent, dumps, generators, network, snapshot
from network_pickles import storage_payload as payload

import ganops
from ganops.compat import CheckpointError, Record, load_network_pkl, read_network_pkl
from ganops.models import stylegan2, stylegan3


def load(data: bytes) -> dict[str, Any]:
    return load_network_pkl(io.BytesIO(data))


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("name", generators())
def test_networks_are_those_that_were_pickled(name: str, protocol: int) -> None:
    generator = generators()[name].eval().requires_grad_(False)
    discriminator = network(stylegan2.Discriminator, DISCRIMINATOR)
    loaded = load(dumps(snapshot(generator, discriminator), protocol))
    assert list(loaded) == ["G", "D", "G_ema", "augment_pipe", "training_set_kwargs"]
    z, c = torch.randn(2, generator.z_dim), torch.randn(2, 3)
    expected = generator(z, c, noise_mode="const")
    assert torch.equal(loaded["G_ema"](z, c, noise_mode="const"), expected)
    assert torch.equal(loaded["D"](expected, c), discriminator(expected, c))
    assert type(loaded["G"]) is type(generator) and type(loaded["D"]) is stylegan2.Discriminator
    assert not loaded["G_ema"].training and not any(p.requires_grad for p in loaded["G_ema"].parameters())
    assert loaded["D"].training and all(p.requires_grad for p in loaded["D"].parameters())
    assert loaded["G"] is loaded["G_ema"], "one object in the pickle stays one"


def test_what_ganops_does_not_know_is_an_inert_record() -> None:
    loaded = load(dumps(snapshot(network(stylegan2.Generator, GENERATOR2), Persistent("PatchDiscriminator", {}))))
    assert repr(loaded["augment_pipe"]) == "<inert record of AugmentPipe(xflip=1)>"
    assert repr(loaded["D"]) == "<inert record of PatchDiscriminator()>"
    assert loaded["training_set_kwargs"]["path"] == "images.zip"


def test_networks_that_are_not_wanted_stay_records() -> None:
    changed = network(stylegan2.Discriminator, DISCRIMINATOR)
    changed.extra = torch.nn.Parameter(torch.ones(1))
    data = dumps(snapshot(network(stylegan2.Generator, GENERATOR2), changed))
    with pytest.raises(
        CheckpointError, match=r"'D': .* 1 are unknown, such as 'extra' \(networks=\[...\] loads others"
    ):
        load(data)
    loaded = load_network_pkl(io.BytesIO(data), ["G_ema"])
    assert isinstance(loaded["G_ema"], stylegan2.Generator) and isinstance(loaded["D"], Record)
    assert torch.equal(loaded["D"].state_dict()["extra"], torch.ones(1))


def test_networks_know_what_made_them() -> None:
    config = load(dumps({"G_ema": network(stylegan2.Generator, GENERATOR2)}))["G_ema"].checkpoint_config
    assert (config.model, config.name) == ("stylegan2.Generator", "G_ema")
    assert GENERATOR2.items() <= config.kwargs.items()


def test_arguments_of_every_codebase() -> None:
    """StyleGAN2-ADA has synthesis_kwargs and other defaults, which its modules record."""
    options = {"channel_base": 128, "channel_max": 8}
    sizes = {name: value for name, value in GENERATOR2.items() if name not in options}
    generator = network(stylegan2.Generator, {**GENERATOR2, "num_fp16_res": 2, "conv_clamp": 128.0})
    generator.mapping.w_avg_beta = 0.995
    generator._kwargs = {**sizes, "synthesis_kwargs": options}
    loaded = load(dumps({"G_ema": generator}))["G_ema"]
    assert loaded.mapping.w_avg_beta == 0.995
    for found, made in zip(loaded.synthesis.children(), generator.synthesis.children(), strict=True):
        assert (found.use_fp16, found.torgb.conv_clamp) == (made.use_fp16, 128.0)


def test_records_hold_every_tensor() -> None:
    generator = network(stylegan3.Generator, {**GENERATOR2, "num_layers": 4})
    record = read_network_pkl(io.BytesIO(dumps({"G": generator})))["G"]
    assert isinstance(record, Record) and record.init_kwargs["num_layers"] == 4
    assert record.source == "raise SystemExit('a source was executed')\n"
    found, expected = record.state_dict(), generator.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_modules_of_torch_are_records() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    record = read_network_pkl(io.BytesIO(dumps({"D": module})))["D"]
    assert repr(record) == "<inert record of torch.nn.modules.container.Sequential()>"
    found, expected = record.state_dict(), module.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numpy_arrays_and_numbers(dtype: str, protocol: int) -> None:
    array = (10 * np.random.default_rng(0).random((2, 3))).astype(dtype)
    for values in (array, array.T, np.zeros((0, 3), dtype)):
        data = dumps({"array": values, "number": array[0, 1]}, protocol)
        if protocol == 3:
            data = data.replace(b"cnumpy._core.", b"cnumpy.core.")  # before numpy 2
        found = read_network_pkl(io.BytesIO(data))
        np.testing.assert_array_equal(found["array"], values)
        assert found["array"].dtype == values.dtype and found["number"] == array[0, 1].item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_of_every_dtype_shape_and_stride(dtype: torch.dtype) -> None:
    tensor = (10 * torch.rand(4, 5)).to(dtype)
    tensors = {"all": tensor, "view": tensor[1:, ::2].T, "number": tensor[2, 3], "none": tensor[:0]}
    found = read_network_pkl(io.BytesIO(dumps(tensors)))
    for name, expected in tensors.items():
        assert found[name].dtype == dtype and torch.equal(found[name], expected)


def test_tensors_of_a_gpu_are_loaded_onto_the_cpu() -> None:
    storage = Call(torch.storage._load_from_bytes, payload(torch.arange(6.0), "cuda:1"))
    tensor = Call(torch._utils._rebuild_tensor_v2, storage, 1, (2, 2), (2, 1), False, None)
    found = read_network_pkl(io.BytesIO(dumps({"x": tensor, "device": torch.device("cuda", 1)})))
    assert found["x"].device.type == "cpu" and found["x"].tolist() == [[1, 2], [3, 4]]
    assert repr(found["device"]) == "<inert record of torch.device()>" and found["device"].args == ("cuda", 1)


AUDIT = """
import os, sys
from ganops.compat import load_network_pkl
paths = sys.argv[1:]
for path in paths:
    load_network_pkl(path)  # what torch imports on first use
before = set(sys.modules)
events = []
sys.addaudithook(lambda event, args: events.append((event, args)))
for path in paths:
    load_network_pkl(path)
found, modules = list(events), set(sys.modules) - before
assert not modules, modules
opened = [args for event, args in found if event == "open"]
assert [args[0] for args in opened] == paths, opened
assert not any(flags & (os.O_WRONLY | os.O_RDWR) for _, _, flags in opened), opened
print({event for event, _ in found} - {"open", "builtins.id", "object.__getattr__"})  # inspect.signature reads those
"""


def test_an_audit_hook_sees_nothing_but_the_file(tmp_path: Path) -> None:
    """No exec, compile, import or unpickling, no process; each file is opened once, for reading."""
    paths = [tmp_path / f"{name}.pkl" for name in generators()]
    for path, generator in zip(paths, generators().values(), strict=True):
        path.write_bytes(dumps(snapshot(generator, network(stylegan2.Discriminator, DISCRIMINATOR))))
    result = subprocess.run([sys.executable, "-c", AUDIT, *paths], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "set()\n"), result.stderr + result.stdout


CODEBASE = """
class Network:
    pass

def _reconstruct_persistent_obj(meta):
    exec(meta["module_src"], {})
"""


def test_source_runs_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torch_utils"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "persistence.py").write_text(CODEBASE)
    monkeypatch.syspath_prepend(tmp_path)
    data = dumps({"G_ema": Persistent("Generator", {}), "w": torch.ones(2)})
    assert isinstance(load(data)["G_ema"], Record) and "torch_utils" not in sys.modules
    with pytest.raises(SystemExit, match="a source was executed"):
        load_network_pkl(io.BytesIO(data), execute_embedded_source=True)
    for module in ("torch_utils", "torch_utils.persistence"):
        monkeypatch.delitem(sys.modules, module)


def test_sources(tmp_path: Path) -> None:
    data = dumps({"training_set_kwargs": None})
    path = tmp_path / "network.pkl"
    path.write_bytes(data)
    for source in (path, str(path), io.BytesIO(data)):
        assert load_network_pkl(source) == {"training_set_kwargs": None}
    with pytest.raises(CheckpointError, match=f"network.pkl: larger than max_bytes = {len(data) - 1}"):
        load_network_pkl(path, max_bytes=len(data) - 1)
    with pytest.raises(FileNotFoundError):
        load_network_pkl(tmp_path / "missing.pkl")
    with pytest.raises(TypeError, match="open for reading bytes"):
        load_network_pkl(io.StringIO("text"))
    with pytest.raises(TypeError, match="source must be a path"):
        load_network_pkl(3)


class Web:
    """Answers https requests: an address to a status, headers and a body."""

    def __init__(self, pages: dict[str, tuple[int, dict[str, str], bytes]]) -> None:
        self.pages = pages

    def __call__(self, handler: Any, request: urllib.request.Request) -> Any:
        status, headers, body = self.pages[request.full_url]
        message = Message()
        for name, value in headers.items():
            message[name] = value
        response = urllib.response.addinfourl(io.BytesIO(body), message, request.full_url, status)
        response.msg = "text"
        return response


def test_https_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dumps({"training_set_kwargs": None})
    pages = {
        "https://host/network.pkl": (200, {}, data),
        "https://host/moved.pkl": (302, {"Location": "https://host/network.pkl"}, b""),
        "https://host/plain.pkl": (302, {"Location": "http://host/network.pkl"}, b""),
        "https://host/file.pkl": (302, {"Location": "file:///etc/passwd"}, b""),
        "https://host/missing.pkl": (404, {}, b""),
    }
    web = Web(pages)
    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", lambda *args: web(*args))
    monkeypatch.setattr(urllib.request.HTTPHandler, "http_open", lambda *args: pytest.fail("http was used"))
    for name in ("network", "moved"):
        assert load_network_pkl(f"https://host/{name}.pkl") == {"training_set_kwargs": None}
    with pytest.raises(CheckpointError, match="larger than max_bytes = 10"):
        load_network_pkl("https://host/network.pkl", max_bytes=10)
    for url in ("https://host/plain.pkl", "https://host/file.pkl", "http://host/network.pkl", "file:///etc/passwd"):
        with pytest.raises(CheckpointError, match=r"only https addresses are loaded|Redirection .* not allowed"):
            load_network_pkl(url)
    with pytest.raises(CheckpointError, match=r"https://host/missing.pkl: cannot be loaded: .*404"):
        load_network_pkl("https://host/missing.pkl")


def test_models_can_be_made_on_the_meta_device() -> None:
    """So that names and shapes are compared before memory is allocated."""
    with torch.device("meta"):
        assert ganops.setup_filter([1, 3, 3, 1]).device.type == "cpu"
