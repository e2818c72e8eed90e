"""AMX's instructions are written as the compiler's own intrinsics write them: no processor here may have them."""

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parents[1]
SOURCE = """
#include "common/tiles.h"

extern "C" void ours(const void* a, const void* b, void* sums, long stride) {
  ganops::AmxTiles tiles;
  tiles.zero<0>();
  tiles.load<1>(a, stride);
  tiles.load<2>(b, stride);
  tiles.multiply<0, 1, 2>();
  tiles.store<0>(sums, stride);
}
extern "C" void intrinsics(const void* a, const void* b, void* sums, long stride, const void* config) {
  _tile_loadconfig(config);
  _tile_zero(0);
  _tile_loadd(1, a, stride);
  _tile_loadd(2, b, stride);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, sums, stride);
  _tile_release();
}
"""


def instructions(listing: str, function: str) -> list[str]:
    """A function's instructions on tiles, without offsets and the names of general registers."""
    body = listing.split(f"<{function}>:")[1].split("\n\n")[0]
    found = re.findall(r"\t((?:\w*tile|tdp).*)$", body, re.MULTILINE)
    return [re.sub(r"-?0x\w+(?=\()|%r\w+", "", line).strip() for line in found]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is x86-64's")
def test_tiles_are_the_intrinsics(tmp_path: Path) -> None:
    (tmp_path / "tiles.cpp").write_text(SOURCE)
    includes = [flag for path in (ROOT / "csrc", *include_paths()) for flag in ("-isystem", str(path))]
    flags = ["-std=c++17", "-O2", "-mamx-tile", "-mamx-bf16", *includes, "-c", "tiles.cpp", "-o", "tiles.o"]
    subprocess.run([os.environ.get("CXX", "c++"), *flags], cwd=tmp_path, check=True)
    command = ["objdump", "-d", "--no-show-raw-insn", "tiles.o"]
    listing = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    expected = instructions(listing, "intrinsics")
    assert len(expected) == 7
    assert instructions(listing, "ours") == expected
