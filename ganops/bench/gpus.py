"""What NVIDIA's data sheets say of its GPUs, at boost clock."""

from __future__ import annotations

from dataclasses import dataclass

SCHEDULERS = 4  # of a multiprocessor: each issues an instruction of a warp in a cycle


@dataclass(frozen=True)
class Gpu:
    """FLOPs a second in float32 without tensor cores, float16 with them (dense, float32 sums); bytes a second."""

    name: str
    architecture: str  # whose machine code is looked at; RTX 40 cards run what was made for 8.0, too
    multiprocessors: int
    lanes: int  # float32 multiply-adds of a multiprocessor in a cycle
    float_flops: float
    tensor_flops: float
    bandwidth: float
    source: str

    @property
    def clock(self) -> float:
        return self.float_flops / (2 * self.lanes * self.multiprocessors)

    @property
    def wavefronts(self) -> float:
        """Of shared memory, a second: one in a cycle of a multiprocessor."""
        return self.multiprocessors * self.clock

    @property
    def instructions(self) -> float:
        """Of warps, a second."""
        return SCHEDULERS * self.multiprocessors * self.clock


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100", "sm_80", 108, 64, 19.5e12, 312e12, 1.555e12, "A100 Tensor Core GPU Architecture (2020), table 1"),
        Gpu("h100", "sm_90", 132, 128, 66.9e12, 989.4e12, 3.35e12, "H100 Tensor Core GPU data sheet (2023), SXM"),
        Gpu("rtx4090", "sm_80", 128, 128, 82.6e12, 165.2e12, 1.008e12, "Ada GPU Architecture (2022), appendix A"),
    )
}
