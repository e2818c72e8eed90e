"""Benchmarks: what ``python -m ganops bench`` runs. docs/benchmarks.md says how to read them."""
