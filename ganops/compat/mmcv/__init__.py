"""The operators of this family in ``mmcv.ops``, with mmcv's names of the arguments.

Each file runs under the name that mmcv knows it by, or can be imported from here.
"""
