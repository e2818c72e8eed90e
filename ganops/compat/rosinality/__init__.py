"""The package ``op`` of rosinality's stylegan2-pytorch and what was built on it; BasicSR's ``ops`` are alike.

Each file runs under the name that a codebase knows it by, or can be imported from here.
"""
