"""From a checked configuration to objects: task, devices, network, module. The only place that instantiates YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import nn

from pnn.errors import UserError
from pnn.layers import Laboratory, PhysicalLayer
from pnn.module import PNNModule
from pnn.rules import Config
from pnn.tasks import Task


@dataclass
class Experiment:
    """Everything a configuration describes, ready to train or to score."""

    config: Config
    task: Task
    laboratory: Laboratory
    network: nn.Module
    module: PNNModule

    @property
    def layers(self) -> dict[str, PhysicalLayer]:
        return {name: m for name, m in self.network.named_modules() if isinstance(m, PhysicalLayer)}


def instantiate(node: Any) -> Any:
    """Hydra's instantiate on plain containers; a constructor's ValueError or TypeError becomes a UserError."""
    try:
        return hydra.utils.instantiate(OmegaConf.create(node), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(str(cause or error).splitlines()[0]) from error


def build(config: Config) -> Experiment:
    """Build the experiment of `config`; parameters are drawn from `config['seed']`.

    Raises UserError for what the parts refuse about each other.
    """
    torch.manual_seed(config["seed"])
    task = instantiate(config["task"])
    training = config["training"]
    laboratory = Laboratory(
        system=instantiate(config["system"]),
        device=instantiate(config["device"]),
        model=instantiate(config["model"]),
        mode=instantiate(training["mode"]),
    )
    architecture = instantiate(config["architecture"])
    try:
        network = architecture(laboratory, task)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    module = PNNModule(network, instantiate(config["optimizer"]), laboratory.devices, training["penalty"], config)
    return Experiment(config, task, laboratory, network, module)
