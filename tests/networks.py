"""What the tests of networks share: inputs, gradients of all parameters, errors."""

import math

import torch


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients_of(loss, network):
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return {name: gradient.double() for name, gradient in zip(names, gradients, strict=True)}


def rms(tensors):
    return math.sqrt(sum(float(t.square().sum()) for t in tensors) / sum(t.numel() for t in tensors))


def relative_errors(actual, expected):
    """For each part, the RMS of the difference over the RMS of what is expected."""
    assert actual.keys() == expected.keys()
    errors = {}
    for part in expected:
        differences = [actual[part][name].cpu() - expected[part][name] for name in expected[part]]
        errors[part] = rms(differences) / rms(expected[part].values())
    return errors
