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
from pnn.tasks.loader import NOBODY

ROUTES: tuple[Via, ...] = ("device", "model")
#: What is summed over the samples of a validation or a test.
SCORES = (*(f"{what}_{via}" for via in ROUTES for what in ("correct", "loss")), "difference", "power", "samples")


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
        return self.sums[name] / (self.sums[count] or 1.0)


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
        correct, samples = float((logits.detach().argmax(-1) == target).sum()), float(len(target))
        if self.ranks == 1:
            loss = functional.cross_entropy(logits, target) + self.penalty * total_penalty(self.network)
            value = float(loss.detach())
        else:
            loss, value, correct, samples = self._shared_loss(logits, target, correct)
        if value != value or value in (float("inf"), float("-inf")):
            raise UserError(
                f"the training loss became {value} at step {self.global_step}; "
                f"lower optimizer.lr={self.recipe.lr} or check the device's range"
            )
        self.train_tally.add(loss=value * samples, correct=correct, samples=samples)
        return loss

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return 1 if self._trainer is None else int(self.trainer.world_size)

    def _shared_loss(self, logits: Tensor, target: Tensor, correct: float) -> tuple[Tensor, float, float, float]:
        """This process's loss, and the whole batch's: mean loss, correct answers, samples.

        Gradients are averaged over the W processes, so a process with m_r of a batch's m samples weighs its mean loss by
        W m_r / m: together they step as one process does.
        """
        own = float((target != NOBODY).sum())
        summed = functional.cross_entropy(logits, target, reduction="sum", ignore_index=NOBODY)
        summed = summed + own * self.penalty * total_penalty(self.network)
        loss, correct, samples = self._summed([float(summed.detach()), correct, own])
        return summed * (self.ranks / samples), loss / samples, correct, samples

    def _summed(self, values: list[float]) -> list[float]:
        """The sums of `values` over all processes."""
        return self.trainer.strategy.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), reduce_op="sum"
        ).tolist()

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
        if bool((target == NOBODY).all()):
            return
        logits = {via: self.network(x, via) for via in ROUTES}
        for via in ROUTES:
            correct = float((logits[via].argmax(-1) == target).sum())
            loss = float(functional.cross_entropy(logits[via], target, reduction="sum"))
            self.eval_tally.add(**{f"correct_{via}": correct, f"loss_{via}": loss})
        difference = float((logits["device"] - logits["model"]).square().sum())
        self.eval_tally.add(difference=difference, power=float(logits["device"].square().sum()), samples=len(target))

    def _report(self, stage: str) -> None:
        tally, self.eval_tally = self.eval_tally, Tally()
        if self.ranks > 1:  # of which one may have had no sample
            tally.sums = dict(zip(SCORES, self._summed([tally.sums.get(name, 0.0) for name in SCORES]), strict=True))
        for via in ROUTES:
            self.log(f"{stage}_accuracy_{via}", tally.per(f"correct_{via}"), prog_bar=True)
            self.log(f"{stage}_loss_{via}", tally.per(f"loss_{via}"))
        self.log(f"{stage}_gap_output_error", tally.per("difference", "power") ** 0.5)

    def configure_optimizers(self) -> Any:
        optimiser, schedule = self.recipe.build(self.network, self.optimizer_steps())
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_steps(self) -> int:
        """Steps of the whole run; at least an epoch's, since validation comes after one. Raises UserError for fewer.

        (Lightning's own estimate loads the data before it restores the loader's position.)
        """
        trainer: Any = self.trainer
        batches, limit = len(trainer.datamodule.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        epoch = -(-batches // trainer.accumulate_grad_batches)
        if 0 <= trainer.max_steps < epoch:
            raise UserError(
                f"trainer.max_steps={trainer.max_steps} ends before the first validation, at {epoch} steps; use -1 for no limit"
            )
        steps = trainer.max_epochs * epoch
        return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = {"devices": [device.state_dict() for device in self.devices], "random_state": torch.get_rng_state()}
        checkpoint["pnn"] = {"config": self.config, "train_tally": dict(self.train_tally.sums), **own}
        if self.ranks > 1:
            everyone = gathered(own, self.ranks)
            checkpoint["pnn"] |= {**everyone[0], "ranks": everyone}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, parameter in self.named_parameters():  # Lightning makes them double only after they have been read
            parameter.data = parameter.data.to(checkpoint["state_dict"][name].dtype)
        state = checkpoint["pnn"]
        own = state["ranks"][self.global_rank] if "ranks" in state else state
        for device, saved in zip(self.devices, own["devices"], strict=True):
            device.load_state_dict(saved)
        self.train_tally.sums = dict(state["train_tally"])
        torch.set_rng_state(own["random_state"].cpu())


def gathered(own: Any, count: int) -> list[Any]:
    """`own` of every process, on every process."""
    import torch.distributed as dist

    everything: list[Any] = [None] * count
    dist.all_gather_object(everything, own)
    return everything
