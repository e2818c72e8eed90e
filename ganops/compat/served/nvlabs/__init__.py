"""The modules of ``torch_utils``, in the layout of StyleGAN2-ADA, StyleGAN3 and what was built on them."""
