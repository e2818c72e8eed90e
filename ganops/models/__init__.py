"""Thin definitions of published systems over the public ops of ganops."""

from .mobile_stylegan import MobileStyleGAN

__all__ = ["MobileStyleGAN"]
