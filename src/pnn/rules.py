"""What a configuration may say: one row per key, and the checks that cross the groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Number:
    """A numeric key: its type, its limits and what to do about a value outside them."""

    key: str
    kind: type
    low: float = -math.inf
    high: float = math.inf
    remedy: str = ""
    open_low: bool = False
    open_high: bool = False
    optional: bool = False

    def problem(self, value: Any) -> str | None:
        """The message for a wrong value, or None."""
        if value is None and self.optional:
            return None
        accepted = (int,) if self.kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted):
            what = "a whole number" if self.kind is int else "a number"
            return f"{self.key}={value} must be {what}; {self.remedy}"
        below = value <= self.low if self.open_low else value < self.low
        above = value >= self.high if self.open_high else value > self.high
        if below or above or value != value:
            return f"{self.key}={value} must be {self.limits}; {self.remedy}"
        return None

    @property
    def limits(self) -> str:
        lower = f"{'>' if self.open_low else '>='} {self.low:g}" if math.isfinite(self.low) else ""
        upper = f"{'<' if self.open_high else '<='} {self.high:g}" if math.isfinite(self.high) else ""
        return " and ".join(part for part in (lower, upper) if part) or "finite"


NUMBERS = (
    Number("seed", int, 0, 2**31, "use 0"),
    Number("device.gap", float, 0, 1, "use 0 for a perfect digital model", open_high=True),
    Number("device.seed", int, 0, 2**31, "use 0"),
    Number("device.distance", float, 0, 1, "use 0 for the device itself", open_high=True),
    Number("device.distance_seed", int, 0, 2**31, "use 0"),
    Number("device.noise_factor", float, 0, remedy="use 1 for the noise as given, 0 for none"),
    Number("device.input_noise", float, 0, remedy="use 0 for none"),
    Number("device.output_noise", float, 0, remedy="use 0 for none"),
    Number("device.relative_noise", float, 0, remedy="use 0 for none"),
    Number("device.timing_jitter", float, 0, 1, "use 0 for none", open_high=True),
    Number("device.dac_bits", int, 2, 32, "use null for a continuous drive", optional=True),
    Number("device.adc_bits", int, 2, 32, "use null for a continuous measurement", optional=True),
    Number("device.dac_range", float, 0, remedy="use null for the system's input range", open_low=True, optional=True),
    Number("device.adc_range", float, 0, remedy="use null for the system's full scale", open_low=True, optional=True),
    Number("device.saturation", float, 0, remedy="use .inf for none", open_low=True),
    Number("device.drift", float, 0, remedy="use 0 for none"),
    Number("device.drift_samples", float, 0, remedy="use 1e5", open_low=True),
    Number("device.eta", float, -1, remedy="use 0.1 as in the paper's notebook", open_low=True),
    Number("device.coupling_noise", float, 0, remedy="use 0 for none"),
    Number("system.duration", float, 0, remedy="use 0.5 as in the paper", open_low=True),
    Number("system.steps", int, 1, remedy="use 1 with nystrom4, about 8 with leapfrog"),
    Number("system.device_steps", int, 1, remedy="use 16"),
    Number("system.low", float, remedy="use null for no clamp", optional=True),
    Number("system.high", float, remedy="use null for no clamp", optional=True),
    Number("system.readout.tail", float, 0, remedy="use null for the whole recording", open_low=True, optional=True),
    Number("exponent", float, 0, 2, "use 1.1", open_low=True),
    Number("device_gain", float, 0, remedy="use 2.0", open_low=True),
    Number("model_gain", float, 0, remedy="use 2.01", open_low=True),
    Number("times", int, 1, 100, "use 10"),
    Number("batches", int, 1, remedy="use 4"),
    Number("seeds", int, 1, remedy="use 5"),
    Number("epochs", int, 1, remedy="use 8"),
    Number("target", float, remedy="use 1e5"),
    Number("lr", float, 0, remedy="use 1e-15", open_low=True),
    Number("steps", int, 1, remedy="use 150"),
    Number("inputs", int, 1, remedy="use 8"),
    Number("outputs", int, 1, remedy="use 8"),
    Number("slot", int, 0, remedy="use 0"),
    Number("threads", int, 1, remedy="use 2"),
    Number("held_out", float, 0, 1, "use 0.1", open_low=True, open_high=True),
    Number("model.measure.samples", int, 2, remedy="use 10000"),
    Number("model.measure.repeats", int, 1, 2, "use 2 to know the noise floor"),
    Number("model.epochs", int, 1, remedy="use 60"),
    Number("model.lr", float, 0, remedy="use 3e-3", open_low=True),
    Number("model.batch_size", int, 1, remedy="use 128"),
    Number("model.rank", int, 1, remedy="use 4"),
    Number("model.pairs", int, 1, remedy="use 2000"),
    Number("model.records", int, 1, remedy="use 64"),
    Number("architecture.depth", int, 1, 1000, "use 2"),
    Number("architecture.patch", int, 1, remedy="use 7 for 28 × 28 images"),
    Number("architecture.width", int, 1, remedy="use 100"),
    Number("architecture.scale", float, remedy="use 1.0"),
    Number("architecture.members", int, 1, 1000, "use 7"),
    Number("architecture.channels", int, 1, 1000, "use 4"),
    Number("architecture.hidden", int, 1, remedy="use 10"),
    Number("hidden", int, 1, remedy="use null for as many parameters as the experiment's network", optional=True),
    Number("architecture.member.depth", int, 1, 1000, "use 3"),
    Number("architecture.channel.depth", int, 1, 1000, "use 2"),
    Number("training.penalty", float, 0, remedy="use 1.0"),
    Number("optimizer.lr", float, 0, remedy="use 1e-3", open_low=True),
    Number("optimizer.weight_decay", float, 0, remedy="use 0"),
    Number("optimizer.warmup", float, 0, 1, "use 0 for none"),
    Number("task.batch_size", int, 1, remedy="use 32"),
    Number("task.eval_batch_size", int, 1, remedy="use 1000"),
    Number("task.seed", int, 0, remedy="use 0"),
    Number("task.split_seed", int, 0, remedy="use 0"),
    Number("task.stride", int, 1, 28, "use 1 for every pixel, 2 for every second one"),
    Number("task.train_limit", int, 1, remedy="use null for all of the training data", optional=True),
    Number("trainer.max_epochs", int, 1, remedy="use 20"),
    Number("trainer.max_steps", int, -1, remedy="use -1 for no limit"),
    Number("trainer.accumulate_grad_batches", int, 1, remedy="use 1"),
    Number("trainer.limit_train_batches", float, 0, remedy="use 1.0 for all", open_low=True),
    Number("trainer.limit_val_batches", float, 0, remedy="use 1.0 for all", open_low=True),
    Number("trainer.limit_test_batches", float, 0, remedy="use 1.0 for all", open_low=True),
    Number("trainer.gradient_clip_val", float, 0, remedy="use null for none", open_low=True, optional=True),
)

#: Switches; Hydra reads `no` and `off` as words, and a word is true.
FLAGS = (
    "one_device",
    "system.linear",
    "system.undepleted",
    "model.bypass",
    "model.root",
    "model.noise",
    "curve",
    "architecture.digital_output",
    "trainer.enable_progress_bar",
    "logger.offline",
)

#: What is called by one word, number or path.
NAMES = ("name", "out")

CHOICES: dict[str, tuple[str | None, ...]] = {
    "reference": (None, "identity", "clamped", "linear", "linear_classifier", "perceptron"),
    "model.measure.plan": ("uniform", "lowpass", "visited"),
    "system.encoding.layout": ("interleaved", "blocks"),
    "system.readout.normalise": ("none", "max", "total"),
    "system.clamp_gradient": ("straight_through", "true"),
    "architecture.reading": ("raster", "shuffled"),
    "system.scheme": ("nystrom4", "leapfrog", "rk4"),
    "system.device_scheme": ("nystrom4", "leapfrog", "rk4"),
    "system.self_coupling": ("reference", "physical"),
    "optimizer.schedule": ("constant", "cosine"),
    "training.monitor": ("val_accuracy_device", "val_accuracy_model", "epoch"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
}


def look_up(config: Config, key: str) -> Any:
    """The value at a dotted key; KeyError when it is not there."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, dict):
            raise KeyError(key)
        node = node[part]
    return node


def problems(config: Config) -> list[str]:
    """Every mistake in a resolved configuration, each as name, value, limit, remedy."""
    return [*_values(config), *_flags(config), *_names(config), *_crossings(config)]


def _foreign(config: Config) -> bool:
    """Whether the system is another package's."""
    return not str((config.get("system") or {}).get("_target_", "pnn.")).startswith("pnn.")


def _values(config: Config) -> Iterator[str]:
    foreign = _foreign(config)
    for rule in NUMBERS:
        if foreign and rule.key.startswith("system."):
            continue  # another package's system has its own rules
        try:
            problem = rule.problem(look_up(config, rule.key))
        except KeyError:
            continue
        if problem:
            yield problem
    for key, allowed in CHOICES.items():
        try:
            value = look_up(config, key)
        except KeyError:
            continue
        if value not in allowed:
            yield f"{key}={value} must be one of {', '.join('null' if a is None else a for a in allowed)}"


def _flags(config: Config) -> Iterator[str]:
    for key in FLAGS:
        if _foreign(config) and key.startswith("system."):
            continue
        try:
            value = look_up(config, key)
        except KeyError:
            continue
        if not isinstance(value, bool):
            yield f"{key}={value} must be true or false"


def _names(config: Config) -> Iterator[str]:
    for key in NAMES:
        value = config.get(key)
        if isinstance(value, (list, dict)):
            yield f"{key}={value} must be one name; use {key}=mine"


def _crossings(config: Config) -> Iterator[str]:
    for check in (_schemes, _betas, _parts, _validated, _mixer, _notebook, _jitter, _hidden, _twin):
        message = check(config)
        if message:
            yield message


def _target(config: Config, group: str) -> str:
    return str((config.get(group) or {}).get("_target_", "")).rpartition(".")[2]


def _twin(config: Config) -> str | None:
    if config.get("twin") is None or "model" not in config or "measure" in (config["model"] or {}):
        return None
    return f"twin={config['twin']} would not be used: add the model that was fitted, model=linear, quadratic, mlp or grey_box"


def _schemes(config: Config) -> str | None:
    system = config.get("system") or {}
    for scheme, steps in (("scheme", "steps"), ("device_scheme", "device_steps")):
        if system.get(scheme) == "nystrom4" and system.get(steps) not in (None, 1):
            return (
                f"system.{steps}={system[steps]} must be 1 with system.{scheme}=nystrom4, which takes one step from rest; "
                f"use system.{scheme}=leapfrog for several"
            )
    return None


def _betas(config: Config) -> str | None:
    if _target(config, "optimizer") != "Adam":
        return None
    betas = config["optimizer"].get("betas", [0.9, 0.999])
    pair = betas if isinstance(betas, (list, tuple)) and len(betas) == 2 else [None]
    if all(isinstance(beta, (int, float)) and not isinstance(beta, bool) and 0 <= beta < 1 for beta in pair):
        return None
    return f"optimizer.betas={betas} must be two numbers in [0, 1); use [0.9, 0.999]"


def _parts(config: Config) -> str | None:
    device = config.get("device") or {}
    parts = device.get("parts")
    if (
        parts is None
        or not str(device["_target_"]).startswith("pnn.")
        or (isinstance(parts, dict) and all(isinstance(v, (int, float)) for v in parts.values()))
    ):
        return None
    return f"device.parts={parts} must be a table of numbers; use +device.parts.NAME=VALUE"


def _validated(config: Config) -> str | None:
    every = (config.get("trainer") or {}).get("check_val_every_n_epoch", 1)
    if every == 1:
        return None
    return f"trainer.check_val_every_n_epoch={every} must be 1: every epoch is validated, and the best one kept"


def _mixer(config: Config) -> str | None:
    if _target(config, "architecture") != "Mixer":
        return None
    task, patch = _target(config, "task"), config["architecture"].get("patch")
    if task == "Vowels":
        return "architecture=mixer cuts images into patches, and task=vowels has no images; use architecture=multilayer"
    stride = config["task"].get("stride", 1)
    if not all(isinstance(number, int) and number >= 1 for number in (patch, stride)):
        return None  # already reported
    pixels = {"Digits": 8, "MNIST": -(-28 // stride), "FashionMNIST": -(-28 // stride)}.get(task, patch)
    if pixels % patch:
        divisors = [d for d in range(1, pixels + 1) if pixels % d == 0]
        return f"architecture.patch={patch} must divide the image of {pixels} × {pixels} pixels; use one of {divisors}"
    return None


def _hidden(config: Config) -> str | None:
    hidden, reference = config.get("hidden"), config.get("reference")
    if hidden is not None and reference != "perceptron":
        return f"hidden={hidden} is of reference=perceptron, and this is reference={reference or 'null'}; leave it out"
    return None


def _notebook(config: Config) -> str | None:
    if _target(config, "device") == "notebook_gap" and _target(config, "system") == "Identity":
        return "device=notebook_gap changes couplings, and system=identity has none; use device=lab or system=coupled_oscillators"
    return None


def _jitter(config: Config) -> str | None:
    jitter = (config.get("device") or {}).get("timing_jitter")
    if _target(config, "system") == "Identity" and isinstance(jitter, (int, float)) and jitter > 0:
        return f"device.timing_jitter={jitter} means nothing for system=identity, which has no record duration; use 0"
    return None
