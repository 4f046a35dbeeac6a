"""From a checked configuration to objects: task, devices, network, module. The only place that instantiates YAML."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import nn

from pnn.architectures import LinearClassifier, Perceptron
from pnn.devices import lab
from pnn.encodings import Direct, Encoder, Mask
from pnn.errors import UserError
from pnn.layers import Laboratory, PhysicalLayer
from pnn.module import PNNModule
from pnn.rules import Config
from pnn.systems import Identity
from pnn.tasks import Task
from pnn.twins import nominal


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
        raise UserError(" ".join(str(cause or error).split())) from error


def build(config: Config) -> Experiment:
    """Build the experiment of `config`; parameters are drawn from `config['seed']`. Digital twins are not fitted yet.

    Raises UserError for what the parts refuse about each other.
    """
    torch.manual_seed(config["seed"])
    try:
        task = instantiate(config["task"])
    except UserError as error:
        raise UserError(explained(error, config)) from error
    training = config["training"]
    laboratory = make_laboratory(config)
    digital = config.get("reference") in DIGITAL  # no physics and no wiring, so no factors for their parameters
    optimizer = instantiate({**config["optimizer"], "factors": {}} if digital else config["optimizer"])
    architecture = instantiate(config["architecture"])
    try:
        if config.get("reference") == "linear_classifier":
            network: nn.Module = LinearClassifier(laboratory, task)
        elif digital:
            network = Perceptron(
                laboratory, task, config.get("hidden") or as_large(architecture(laboratory, task), task)
            )
        else:
            network = architecture(laboratory, task)
        optimizer.groups(network)  # refuses a factor without a parameter
    except (ValueError, TypeError) as error:
        raise UserError(explained(error, config)) from error
    noisy = [
        b.model for b in laboratory.benches if training["name"] == "in_silico" and getattr(b.model, "with_noise", False)
    ]
    module = PNNModule(network, optimizer, laboratory.devices, training["penalty"], config, noisy)
    return Experiment(config, task, laboratory, network, module)


#: References without any physics: the whole network is another one.
DIGITAL = ("linear_classifier", "perceptron")


def as_large(network: nn.Module, task: Task) -> int:
    """Hidden units with which a perceptron has about as many trainable parameters as `network`."""
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return max(1, round((count - task.classes) / (task.features + task.classes + 1)))


def explained(error: Exception, config: Config) -> str:
    """The message of a constructor that refused its arguments; a key that an experiment left behind is named as such."""
    found = re.fullmatch(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    for group in ("architecture", "system", "device", "model", "task") if found else ():
        target = str(config[group]["_target_"]).rpartition(".")[2]
        recipe = group == "device" and found is not None and found[1] == "SimulatedDevice"  # gets what a recipe leaves
        if found and found[2] in config[group] and (target == found[1] or recipe):
            value = config[group][found[2]]
            return f"{group}.{found[2]}={value} is not an option of {target}; take it out with ~{group}.{found[2]}"
    return str(error)


#: Keys of a system's YAML that are about encoder and read-out, not about its physics, and their names in a Laboratory.
AROUND = {"encoding": "encoding", "readout": "readout", "clamp_gradient": "clamp"}


def physics(node: Config) -> dict[str, Any]:
    """What a Laboratory takes from the YAML of a system: the system's constructor, encoding, read-out, clamp."""
    around = {
        key: instantiate(node[key]) if isinstance(node[key], dict) else node[key] for key in AROUND if key in node
    }
    own = instantiate({key: value for key, value in node.items() if key not in AROUND})
    return {"system": own, **{AROUND[key]: value for key, value in around.items()}}


def make_laboratory(config: Config) -> Laboratory:
    """The laboratory of a configuration's system, device, model and training, or that of its reference."""
    laboratory = Laboratory(
        **physics(config["system"]),
        device=instantiate(config["device"]),
        model=instantiate({key: value for key, value in config["model"].items() if key != "measure"}),
        mode=instantiate(config["training"]["mode"]),
        reuse=config.get("one_device", False),
    )
    reference = config.get("reference")
    if reference == "linear" and config.get("twin"):
        raise UserError(
            f"twin={config['twin']} is of a device with all of its physics; leave it out with reference=linear"
        )
    return laboratory if reference in (None, *DIGITAL) else referred(laboratory, reference)


def referred(laboratory: Laboratory, reference: str) -> Laboratory:
    """The same laboratory with its physics replaced: what encoder, read-out and training do without it.

    `identity`: f_p(u) → u, no range; `clamped`: f_p(u) → u within the system's range; both without noise and converters.
    `linear`: the linearised physics on an equally imperfect device, its digital model of the same kind, fitted to it.
    Raises UserError where that means nothing.
    """
    real = laboratory.system
    if reference == "linear":
        return replace(laboratory, system=lambda inputs, outputs: real(inputs, outputs).linearised())

    def identity(inputs: int, outputs: int) -> Identity:
        system = real(inputs, outputs)
        if reference == "identity":
            return Identity(system.input_size)
        low, high = system.input_range
        if not (math.isfinite(low) or math.isfinite(high)):
            raise UserError(
                f"reference=clamped: {type(system).__name__} has no range to clamp to; use reference=identity"
            )
        return Identity(system.input_size, low=low, high=high)

    direct = getattr(laboratory.encoding, "func", laboratory.encoding) is Direct
    encoding: Encoder = Mask if direct else laboratory.encoding
    return replace(laboratory, system=identity, device=lab, model=nominal, encoding=encoding)
