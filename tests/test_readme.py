"""What the README says can be done as it says."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import ganops

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.splitlines()[-1].split("#")[0].strip())
def test_examples_run(example: str) -> None:
    if "from_pretrained" in example and not find_spec("random_face"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs: pip install --no-deps random-face")
    names: dict[str, object] = {}
    exec(example, names)
    last_shapes = dict(re.findall(r"^(\w+) = .*# \[([\d, ]+)\]", example, re.MULTILINE))
    assert last_shapes
    for name, shape in last_shapes.items():
        assert list(names[name].shape) == [int(n) for n in shape.split(",")], name


def test_every_operator_has_a_row() -> None:
    assert len(EXAMPLES) == 3
    public = set(ganops.__all__) - {"backend", "backends"}
    assert {name for name in public if not re.search(rf"^\|.*`{name}[(`]", README, re.MULTILINE)} == set()


def test_links_to_files_exist() -> None:
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text):
            assert (ROOT / target).exists(), target
