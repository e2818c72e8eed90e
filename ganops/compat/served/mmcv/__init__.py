"""The operators of this family in ``mmcv.ops``, with mmcv's names of the arguments."""
