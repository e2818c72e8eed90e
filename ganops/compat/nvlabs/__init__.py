"""The modules of ``torch_utils``, in the layout of StyleGAN2-ADA, StyleGAN3 and what was built on them.

Each file runs under the name that a codebase knows it by, or can be imported from here.
"""
