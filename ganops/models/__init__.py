"""Thin definitions of published systems over the public ops of ganops."""

from . import stylegan2
from .mobile_stylegan import MobileStyleGAN

__all__ = ["MobileStyleGAN", "stylegan2"]
