"""The LightningModule: loss, accuracy on the device and on the model, optimiser. No physics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from pnn.errors import UserError
from pnn.layers import Via, total_penalty
from pnn.optimizers import Adam

ROUTES: tuple[Via, ...] = ("device", "model")


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """What training moves: a fitted digital model inside the network is not part of it."""
    return [p for p in network.parameters() if p.requires_grad]


class Tally:
    """Running sums over an epoch that survive a checkpoint; plain numbers."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def per(self, name: str, count: str = "samples") -> float:
        return self.sums[name] / max(self.sums[count], 1.0)


class PNNModule(pl.LightningModule):
    """Trains a network as its training mode says; validates and tests it on the device and on the digital model.

    The network takes (x, via) and returns logits (batch, classes). Loss = cross-entropy + `penalty` · out-of-range
    penalty. `noisy` are digital models whose noise in-silico training draws. Checkpoints carry `config` (plain
    containers), the devices' random state and the running sums. Raises UserError when the loss is not finite.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Adam,
        devices: Sequence[Any],
        penalty: float = 1.0,
        config: dict[str, Any] | None = None,
        noisy: Sequence[Any] = (),
    ):
        super().__init__()
        self.noisy = list(noisy)
        self.config = config or {}
        self.network = network
        self.recipe, self.devices, self.penalty = optimizer, list(devices), penalty
        self.train_tally, self.eval_tally = Tally(), Tally()

    def forward(self, x: Tensor, via: Via = "device") -> Tensor:
        return self.network(x, via)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        x, target = batch
        logits = self._trained(x)
        loss = functional.cross_entropy(logits, target) + self.penalty * total_penalty(self.network)
        value = float(loss.detach())
        if value != value or value in (float("inf"), float("-inf")):
            raise UserError(
                f"the training loss became {value} at step {self.global_step}; "
                f"lower optimizer.lr={self.recipe.lr} or check the device's range"
            )
        correct = float((logits.detach().argmax(-1) == target).sum())
        self.train_tally.add(loss=value * len(target), correct=correct, samples=len(target))
        return loss

    def _trained(self, x: Tensor) -> Tensor:
        """Logits of a training step; digital models with a noise model draw from it, here and nowhere else."""
        for model in self.noisy:
            model.sampling = True
        try:
            return self.network(x, "train")
        finally:
            for model in self.noisy:
                model.sampling = False

    def on_train_epoch_end(self) -> None:
        self.train_tally = Tally()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        if self.train_tally.sums:
            self.log("train_loss", self.train_tally.per("loss"))
            self.log("train_accuracy", self.train_tally.per("correct"))
        self._report("val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._score(batch)

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _score(self, batch: tuple[Tensor, Tensor]) -> None:
        x, target = batch
        logits = {via: self.network(x, via) for via in ROUTES}
        for via in ROUTES:
            correct = float((logits[via].argmax(-1) == target).sum())
            loss = float(functional.cross_entropy(logits[via], target, reduction="sum"))
            self.eval_tally.add(**{f"correct_{via}": correct, f"loss_{via}": loss})
        difference = float((logits["device"] - logits["model"]).square().sum())
        self.eval_tally.add(difference=difference, power=float(logits["device"].square().sum()), samples=len(target))

    def _report(self, stage: str) -> None:
        tally, self.eval_tally = self.eval_tally, Tally()
        for via in ROUTES:
            self.log(f"{stage}_accuracy_{via}", tally.per(f"correct_{via}"), prog_bar=True)
            self.log(f"{stage}_loss_{via}", tally.per(f"loss_{via}"))
        self.log(f"{stage}_gap_output_error", tally.per("difference", "power") ** 0.5)

    def configure_optimizers(self) -> Any:
        optimiser, schedule = self.recipe.build(self.network, self.optimizer_steps())
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_steps(self) -> int:
        """Steps of the whole run. (Lightning's own estimate loads the data before it restores the loader's position.)"""
        trainer: Any = self.trainer
        batches, limit = len(trainer.datamodule.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = trainer.max_epochs * -(-batches // trainer.accumulate_grad_batches)
        return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["pnn"] = {
            "config": self.config,
            "devices": [device.state_dict() for device in self.devices],
            "train_tally": dict(self.train_tally.sums),
            "random_state": torch.get_rng_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["pnn"]
        for device, saved in zip(self.devices, state["devices"], strict=True):
            device.load_state_dict(saved)
        self.train_tally.sums = dict(state["train_tally"])
        torch.set_rng_state(state["random_state"].cpu())
