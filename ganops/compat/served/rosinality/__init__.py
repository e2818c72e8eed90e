"""The package ``op`` of rosinality's stylegan2-pytorch and what was built on it; BasicSR's ``ops`` are alike."""
