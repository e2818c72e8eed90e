"""Losses: closed forms, and gradients of gradients against Jacobians that torch.func computes in another way."""

import math

import pytest
import torch
from torch import nn

from ganops.models import losses


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_by_formula():
    real, fake = normal(5, 1), normal(7, 1, seed=1)
    real_list, fake_list = real.flatten().tolist(), fake.flatten().tolist()

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    def mean(values):
        return sum(values) / len(values)

    expected = mean([-math.log(sigmoid(v)) for v in fake_list])
    assert float(losses.nonsaturating_generator_loss(fake)) == pytest.approx(expected, rel=1e-12)
    expected = mean([-math.log(sigmoid(v)) for v in real_list]) + mean([-math.log(1 - sigmoid(v)) for v in fake_list])
    assert float(losses.logistic_discriminator_loss(real, fake)) == pytest.approx(expected, rel=1e-12)
    assert float(losses.hinge_generator_loss(fake)) == pytest.approx(-mean(fake_list), rel=1e-12)
    expected = mean([max(0, 1 - v) for v in real_list]) + mean([max(0, 1 + v) for v in fake_list])
    assert float(losses.hinge_discriminator_loss(real, fake)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", [losses.logistic_discriminator_loss, losses.hinge_discriminator_loss])
def test_parts_of_the_discriminator_losses(loss):
    real, fake = normal(5, 1), normal(3, 1)
    assert float(loss(real, None) + loss(None, fake)) == pytest.approx(float(loss(real, fake)))
    with pytest.raises(ValueError, match="real_logits and fake_logits"):
        loss(None, None)


def test_undecided_scores():
    zero = torch.zeros(4, 1, dtype=torch.float64)
    assert float(losses.nonsaturating_generator_loss(zero)) == pytest.approx(math.log(2))
    assert float(losses.logistic_discriminator_loss(zero, zero)) == pytest.approx(2 * math.log(2))
    assert float(losses.hinge_discriminator_loss(zero, zero)) == 2


@pytest.mark.parametrize("loss", [losses.nonsaturating_generator_loss, losses.hinge_generator_loss])
def test_generator_losses_raise_the_score(loss):
    scores = (10 * normal(6, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(scores), scores)
    assert (gradient < 0).all()


@pytest.mark.parametrize("penalty", [losses.r1_penalty, losses.r2_penalty])
def test_gradient_penalty_of_a_linear_score(penalty):
    """D(x) = <a, x>: the penalty is gamma/2 |a|^2 wherever x is, and its gradient in a is gamma a."""
    a = normal(3, 4, 4).requires_grad_()
    images = normal(5, 3, 4, 4, seed=1).requires_grad_()
    value = penalty((images * a).sum(dim=[1, 2, 3])[:, None], images, gamma=10)
    torch.testing.assert_close(value, 5 * a.square().sum())
    (gradient,) = torch.autograd.grad(value, a)
    torch.testing.assert_close(gradient, 10 * a)


@pytest.mark.parametrize("penalty", [losses.r1_penalty, losses.r2_penalty])
def test_gradient_penalty_by_jacobian(penalty):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    images = normal(4, 3, 2, 2).requires_grad_()
    value = penalty(network(images), images, gamma=3)
    # The network treats each sample alone, so the Jacobian's diagonal blocks hold its gradients.
    jacobian = torch.func.jacrev(network)(images)[:, 0]
    each = torch.stack([jacobian[i, i].square().sum() for i in range(len(images))])
    torch.testing.assert_close(value, 1.5 * each.mean())

    parameters = list(network.parameters())
    gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
    step = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = normal(*parameter.shape, seed=2)
        values = []
        for sign in (1, -1):
            parameter.data.add_(direction, alpha=sign * step)
            values.append(float(penalty(network(images), images, gamma=3).detach()))
            parameter.data.add_(direction, alpha=-sign * step)
        numeric = (values[0] - values[1]) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-6, abs=1e-9)


def test_path_lengths_by_jacobian():
    height, width = 3, 2
    weight = normal(4, 5, 3 * height * width)

    def draw(ws):
        """ws [N, 4, 5] to images [N, 3, H, W]."""
        return torch.tanh(torch.einsum("nlw,lwp->np", ws, weight)).reshape(len(ws), 3, height, width)

    ws, noise = normal(2, 4, 5, seed=1).requires_grad_(), normal(2, 3, height, width, seed=2)
    lengths = losses.path_lengths(draw(ws), ws, noise)
    for i in range(len(ws)):
        jacobian = torch.func.jacrev(draw)(ws[i : i + 1])[0, :, :, :, 0]  # [3, H, W, 4, 5]
        product = torch.einsum("chwlv,chw->lv", jacobian, noise[i] / math.sqrt(height * width))
        expected = product.square().sum(dim=1).mean().sqrt()
        torch.testing.assert_close(lengths[i], expected)


def test_path_length_of_one_latent():
    """G(w) = s w as an image: J^T y is s y, y of squared length C H W / (H W)."""
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    w, noise = normal(2, 12).requires_grad_(), normal(2, 3, 2, 2, seed=1)
    lengths = losses.path_lengths((scale * w).reshape(2, 3, 2, 2), w, noise)
    expected = 3 * noise.flatten(1).norm(dim=1) / 2
    torch.testing.assert_close(lengths, expected)
    (gradient,) = torch.autograd.grad(lengths.sum(), scale)
    torch.testing.assert_close(gradient, expected.sum() / 3)


def test_path_length_penalty_and_its_mean():
    """The mean includes this batch, so the gradient flows through it, too."""
    penalty = losses.PathLengthPenalty(weight=2, decay=0.25).double()
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    mean = 0.0
    for seed in range(3):
        w, noise = normal(2, 12, seed=seed).requires_grad_(), normal(2, 3, 2, 2, seed=seed + 10)
        value = penalty((scale * w).reshape(2, 3, 2, 2), w, noise)
        lengths = scale * noise.flatten(1).norm(dim=1) / 2
        moved = 0.75 * mean + 0.25 * lengths.mean()
        expected = 2 * (lengths - moved).square().mean()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(*(torch.autograd.grad(v, scale)[0] for v in (value, expected)))
        mean = float(moved.detach())
        assert float(penalty.mean) == pytest.approx(mean)
    assert penalty.state_dict().keys() == {"mean"} and not penalty.mean.requires_grad


def test_path_length_noise_is_drawn():
    w = normal(2, 12).requires_grad_()
    image = (5 * w).reshape(2, 3, 2, 2)
    torch.manual_seed(0)
    first, second = losses.path_lengths(image, w), losses.path_lengths(image, w)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    torch.testing.assert_close(losses.path_lengths(image, w, torch.randn_like(image).clone()), first)


def test_lazy_adam():
    settings = losses.lazy_adam(0.002, (0.0, 0.99), interval=16)
    assert settings["lr"] == pytest.approx(0.002 * 16 / 17)
    assert settings["betas"] == (0, pytest.approx(0.99 ** (16 / 17)))
    torch.optim.Adam([torch.zeros(1, requires_grad=True)], **settings)
    with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
        losses.lazy_adam(0.002, (0, 0.99), interval=0)


def test_lazy_adam_decays_the_moments_as_fast():
    """17 steps with the corrected betas are worth 16 with the given ones."""
    _, beta = losses.lazy_adam(0.002, (0.0, 0.99), interval=16)["betas"]
    assert beta**17 == pytest.approx(0.99**16)


@pytest.mark.parametrize("name", ["real_images", "fake_images", "ws"])
def test_a_gradient_must_be_required(name):
    x = normal(2, 3, 2, 2)
    call = {
        "real_images": lambda: losses.r1_penalty(x.sum(dim=[1, 2, 3]), x, 10),
        "fake_images": lambda: losses.r2_penalty(x.sum(dim=[1, 2, 3]), x, 10),
        "ws": lambda: losses.PathLengthPenalty()(x, x.flatten(1)),
    }[name]
    with pytest.raises(ValueError, match=f"{name} must require a gradient"):
        call()
