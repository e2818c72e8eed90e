"""The operators in plain PyTorch: the executable specification, and the fallback where nothing is compiled."""
