"""What a step of training is: loss, penalty, tallies, learning rates, the number of steps, and the table of answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pnn.devices import lab
from pnn.encodings import Mask
from pnn.gradients import physics_aware
from pnn.layers import Laboratory
from pnn.module import PNNModule
from pnn.optimizers import Adam
from pnn.signals import confusion
from pnn.systems import Identity
from pnn.twins import nominal


class Net(nn.Module):
    """A linear map whose model answers half of what the device does."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor, via: str = "train") -> Tensor:
        return (0.5 if via == "model" else 1.0) * (x @ self.w)


def made(**more: Any) -> PNNModule:
    torch.manual_seed(0)
    return PNNModule(Net(), Adam(), [], **more)


def test_the_training_loss_is_the_mean_over_samples() -> None:
    module = made()
    batches = [(torch.randn(n, 4), torch.randint(3, (n,))) for n in (5, 2)]
    losses = [float(module.training_step(b, 0).detach()) for b in batches]
    assert module.train_tally.per("loss") == pytest.approx((5 * losses[0] + 2 * losses[1]) / 7)


def test_the_validation_loss_is_the_mean_over_samples() -> None:
    module = made()
    x, y = torch.randn(7, 4), torch.randint(3, (7,))
    for part in (slice(0, 5), slice(5, 7)):
        with torch.no_grad():
            module.validation_step((x[part], y[part]), 0)
    expected = float(functional.cross_entropy(module.network(x, "model"), y).detach())
    assert module.eval_tally.per("loss_model") == pytest.approx(expected)


def test_the_output_error_is_relative_to_the_device() -> None:
    module = made()
    x, y = torch.randn(7, 4), torch.randint(3, (7,))
    with torch.no_grad():
        module.validation_step((x, y), 0)
    assert module.eval_tally.per("difference", "power") ** 0.5 == pytest.approx(0.5)


def test_every_epoch_starts_a_new_tally() -> None:
    module = made()
    module.training_step((torch.randn(5, 4), torch.randint(3, (5,))), 0)
    module.on_train_epoch_end()
    assert not module.train_tally.sums


def test_the_penalty_has_its_weight() -> None:
    layer = Laboratory(lambda i, o: Identity(i, o, -1.0, 1.0), lab, nominal, physics_aware, encoding=Mask).layer(3, 3)
    x, y = 5 * torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)
    plain, heavy = (
        float(PNNModule(layer, Adam(), [], penalty=p).training_step((x, y), 0).detach()) for p in (0.0, 10.0)
    )
    assert heavy - plain == pytest.approx(10 * float(layer.penalty.detach()), rel=1e-5) and heavy > plain + 1


def test_the_learning_rate_ramps_up_and_decays() -> None:
    recipe = Adam(warmup=0.1, schedule="cosine")
    assert [recipe.factor(s, 100) for s in (0, 9, 10, 55, 100)] == pytest.approx([0.1, 1, 1, 0.5, 0])


def test_factors_multiply_the_rate_of_their_parameters() -> None:
    network = nn.Linear(3, 2)
    optimiser, _ = Adam(lr=0.1, betas=(0.5, 0.6), factors={"bias": 3.0}).build(network, 10)
    rates = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    assert (rates[id(network.weight)], rates[id(network.bias)]) == pytest.approx((0.1, 0.3))


def test_betas_reach_the_optimiser() -> None:
    optimiser, _ = Adam(betas=(0.5, 0.6)).build(nn.Linear(3, 2), 10)
    assert optimiser.param_groups[0]["betas"] == (0.5, 0.6)


def test_confusion_counts_rows_of_truth_and_columns_of_the_devices_answer() -> None:
    def answers(x: Tensor, via: str) -> Tensor:
        return functional.one_hot(torch.tensor([1, 1, 2] if via == "device" else [0, 0, 0]), 3).float()

    counts = confusion(answers, [(torch.zeros(3, 1), torch.tensor([0, 1, 2]))], 3)
    assert counts.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_schedule_counts_the_steps_that_will_be_taken() -> None:
    def steps(**t: float) -> int:
        t = {"limit_train_batches": 1.0, "accumulate_grad_batches": 1, "max_epochs": 3, "max_steps": -1} | t
        data = SimpleNamespace(train_dataloader=lambda: range(10))
        return PNNModule.optimizer_steps(SimpleNamespace(trainer=SimpleNamespace(datamodule=data, **t)))

    assert [
        steps(),
        steps(limit_train_batches=4),
        steps(limit_train_batches=0.5),
        steps(accumulate_grad_batches=3),
    ] == [30, 12, 15, 12]
