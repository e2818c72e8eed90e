"""The IR reader: what it finds in a good file, and that no bad file gets past it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganops.models.openvino_ir import MAX_XML_BYTES, read_ir

WEIGHT = np.arange(6, dtype="<f4").reshape(2, 3)
BIAS = np.array([5, -7], dtype="<i8")
DATA = WEIGHT.tobytes() + BIAS.tobytes()

GRAPH = """<?xml version="1.0" ?>
<net name="small" version="10">
  <layers>
    <layer id="0" name="z" type="Parameter"><data shape="1, 3" element_type="f32"/></layer>
    <layer id="1" name="weight" type="Const"><data element_type="f32" shape="2, 3" offset="0" size="24"/></layer>
    <layer id="2" name="dense" type="MatMul"/>
    <layer id="3" name="7" type="Const"><data element_type="i64" shape="2" offset="24" size="16"/></layer>
    <layer id="4" name="row" type="Reshape"/>
    <layer id="5" name="sum" type="Add"/>
  </layers>
  <edges>
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
    <edge from-layer="3" from-port="0" to-layer="4" to-port="0"/>
    <edge from-layer="2" from-port="2" to-layer="4" to-port="1"/>
    <edge from-layer="2" from-port="2" to-layer="5" to-port="0"/>
    <edge from-layer="4" from-port="2" to-layer="5" to-port="1"/>
  </edges>
</net>
"""


@pytest.fixture
def files(tmp_path):
    def write(graph=GRAPH, data=DATA):
        path = tmp_path / "small.xml"
        path.write_bytes(graph if isinstance(graph, bytes) else graph.encode())
        path.with_suffix(".bin").write_bytes(data)
        return path

    return write


def test_constants_and_wiring(files):
    graph = read_ir(files())
    np.testing.assert_array_equal(graph.constants["weight"], WEIGHT)
    np.testing.assert_array_equal(graph.constant("7"), BIAS)
    assert graph.constants["weight"].dtype == np.float32 and not graph.constants["weight"].flags.writeable
    dense = graph.follow(graph.first("Parameter"), "MatMul")
    assert dense.name == "dense" and dense.inputs == ("0", "1")
    np.testing.assert_array_equal(graph.operand(dense), WEIGHT)
    np.testing.assert_array_equal(graph.operand(graph.follow(dense, "Add")), BIAS)


def test_separate_data_file_and_scalar(files, tmp_path):
    path = files(GRAPH.replace('shape="2" offset="24" size="16"', 'shape="" offset="24" size="8"'))
    other = path.with_suffix(".bin").rename(tmp_path / "other.bin")
    assert read_ir(path, other).constant("7") == 5


@pytest.mark.parametrize(
    ("lookup", "text"),
    [
        (lambda graph: graph.constant("dense"), "constant named 'dense'"),
        (lambda graph: graph.layer("nothing"), "layer named 'nothing'"),
        (lambda graph: graph.first("Convolution"), "type Convolution"),
        (lambda graph: graph.follow(graph.layer("sum"), "MatMul"), "MatMul layer downstream of 'sum'"),
        (lambda graph: graph.operand(graph.layer("z")), "'z' has 0 constant inputs"),
    ],
)
def test_lookup_of_what_is_not_there(files, lookup, text):
    with pytest.raises(ValueError, match=text):
        lookup(read_ir(files()))


def test_ambiguous_name_is_not_a_constant(files):
    graph = read_ir(files(GRAPH.replace('name="7"', 'name="weight"')))
    assert graph.constants == {}
    with pytest.raises(ValueError, match="one constant named 'weight'"):
        graph.constant("weight")


def test_cycles_end(files):
    cycle = '<edge from-layer="5" from-port="0" to-layer="0" to-port="0"/>'
    loop = '<edge from-layer="4" from-port="0" to-layer="4" to-port="0"/>'
    graph = read_ir(files(GRAPH.replace('<edge from-layer="3" from-port="0" to-layer="4" to-port="0"/>', cycle + loop)))
    with pytest.raises(ValueError, match="Convolution layer downstream"):
        graph.follow(graph.first("Parameter"), "Convolution")
    with pytest.raises(ValueError, match="0 constant inputs"):
        graph.operand(graph.layer("sum"))


ENTITY_BOMB = """<?xml version="1.0"?>
<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<net version="10"><layers><layer id="0" name="&b;" type="Const"/></layers></net>"""


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        ("", "in XML"),
        ("weights: 3", "in XML"),
        (GRAPH[:-20], "in XML"),
        (b"\x80\x02}q\x00.", "in UTF-8"),
        (ENTITY_BOMB, "entity declarations are refused"),
        (ENTITY_BOMB.encode("utf-16"), "in UTF-8"),
        (b" " * (MAX_XML_BYTES + 1), f"at most {MAX_XML_BYTES} bytes"),
        ("<a>" * 100_000 + "</a>" * 100_000, "expected <net>"),
        ("<html/>", "expected <net>"),
        (GRAPH.replace('version="10"', 'version="2"'), "version 10 or 11"),
        ('<net version="10"/>', "expected layers"),
        (GRAPH.replace('id="4"', 'id="3"'), "occurs twice"),
        (GRAPH.replace('id="4" ', ""), "attribute 'id'"),
        (GRAPH.replace(' type="Add"', ""), "attribute 'type'"),
        (GRAPH.replace('to-layer="5" to-port="1"', 'to-layer="50" to-port="1"'), "expected ids of layers"),
        (GRAPH.replace('to-layer="5" to-port="1"', 'to-layer="5" to-port="0"'), "two edges"),
        (GRAPH.replace('to-layer="5" to-port="1"', 'to-layer="5" to-port="one"'), "non-negative integer"),
        (GRAPH.replace('<data element_type="f32" shape="2, 3" offset="0" size="24"/>', ""), "no <data>"),
        (GRAPH.replace('element_type="f32" shape="2, 3"', 'element_type="object" shape="2, 3"'), "type 'object'"),
        (GRAPH.replace('offset="24"', 'offset="25"'), "ends at byte 41.*truncated"),
        (GRAPH.replace('offset="24"', 'offset="-16"'), "non-negative integer"),
        (GRAPH.replace('offset="24"', 'offset="0x18"'), "non-negative integer"),
        (GRAPH.replace('offset="24"', 'offset="' + "9" * 5000 + '"'), "non-negative integer"),
        (GRAPH.replace('offset="24"', 'offset="' + "9" * 18 + '"'), "truncated"),
        (GRAPH.replace('size="24"', 'size="20"'), "cannot take 20 bytes"),
        (GRAPH.replace('shape="2, 3"', 'shape="2, -3"'), "non-negative integer"),
        (GRAPH.replace('shape="2, 3"', 'shape="4294967296, 4294967296"'), "cannot take 24 bytes"),
        (GRAPH.replace('shape="2, 3" offset="0" size="24"', 'shape="0, 3" offset="0" size="0"'), "cannot take 0 bytes"),
        (GRAPH.replace('shape="2, 3"', 'shape="' + "1, " * 70 + '2, 3"'), "at most"),
    ],
)
def test_bad_graph(files, graph, text):
    with pytest.raises(ValueError, match=text):
        read_ir(files(graph))


@pytest.mark.parametrize("length", [0, 1, 24, len(DATA) - 1])
def test_truncated_data(files, length):
    with pytest.raises(ValueError, match=f"has {length} bytes; is it truncated"):
        read_ir(files(data=DATA[:length]))


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_missing_file(files, suffix):
    path = files()
    path.with_suffix(suffix).unlink()
    with pytest.raises(FileNotFoundError, match=f"small{suffix}"):
        read_ir(path)


@given(st.lists(st.tuples(st.integers(0, len(GRAPH) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes(tmp_path_factory, flips):
    """Any damage ends in ValueError or in constants that lie inside the data."""
    graph = bytearray(GRAPH.encode())
    for position, byte in flips:
        graph[position] = byte
    path = tmp_path_factory.mktemp("flipped") / "small.xml"
    path.write_bytes(graph)
    path.with_suffix(".bin").write_bytes(DATA)
    try:
        constants = read_ir(path).constants
    except ValueError:
        return
    for value in constants.values():
        assert value.tobytes() in DATA


@given(st.integers(0, len(GRAPH.rstrip()) - 1))
def test_truncated_graph(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("truncated") / "small.xml"
    path.write_text(GRAPH[:length])
    path.with_suffix(".bin").write_bytes(DATA)
    with pytest.raises(ValueError, match=r"small\.xml: expected"):
        read_ir(path)
