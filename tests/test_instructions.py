"""No CPU kernel executes more instructions than recorded: a slowdown shows without a clock."""

from __future__ import annotations

import pytest
from instructions import CASES, count, instructions, missing, recorded, slower

from ganops import _gpu

PROFILE = """
ob=(1) /usr/bin/python3
fn=(1) main
5 1000
cob=(2) /somewhere/ganops/_C.abi3.so
cfn=(2) kernel
calls=1 0
5 300
ob=(2)
fn=(2)
10 200
+3 40
cob=(3) /usr/lib/libc.so.6
cfn=(3) memcpy
calls=2 0
* 60
ob=(3)
fn=(3)
0 60
"""


def test_only_the_library_s_own_instructions_count() -> None:
    assert instructions(PROFILE) == 240


def test_a_slowdown_is_reported() -> None:
    known = {"blur": 1000, "gone": 1}
    assert slower(known, {"blur": 1021, "new": 1}) == [
        "blur: 1021 instructions, recorded 1000",
        "gone is recorded but not counted",
        "new is not recorded",
    ]
    assert slower({"blur": 1000}, {"blur": 1019}) == []


def test_every_case_is_recorded() -> None:
    assert recorded()["counts"].keys() == CASES.keys()


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_no_kernel_takes_more_instructions_than_recorded() -> None:
    known, compiler = recorded(), _gpu.build_info().compiler
    if compiler != known["compiler"]:
        pytest.skip(f"recorded with {known['compiler']}, built with {compiler}")
    worse = slower(known["counts"], count())
    assert not worse, "\n".join(worse) + "\nif it has to be: python tests/instructions.py --record"
