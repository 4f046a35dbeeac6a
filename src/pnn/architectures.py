"""How physical layers are wired. Wiring only: no physics, no training.

Every network takes x (*lead, ..., features) to logits (*lead, ..., classes); `lead` are independent copies (seeds,
ensemble members, channels) that run in one batched call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from pnn.encodings import resample, uniform
from pnn.layers import Laboratory, PhysicalLayer, Via
from pnn.systems.system import per_sample

Lead = tuple[int, ...]


class Shape(Protocol):
    """What a network must know of its task: flat inputs per sample, classes, and the image's shape if it is one."""

    features: int
    classes: int
    image_shape: tuple[int, int] | None


@dataclass(frozen=True)
class Sizes:
    """The shape of a part of a network: what its features and outputs look like from inside a larger one."""

    features: int
    classes: int
    image_shape: tuple[int, int] | None = None


def gain(value: float, lead: Lead) -> nn.Parameter:
    """A trainable scalar of every copy, (*lead, 1)."""
    return nn.Parameter(torch.full((*lead, 1), float(value)))


class Multilayer(nn.Module):
    """x → f(·, θ¹) → … → f(·, θ^depth), the last layer read out on `classes` outputs; logits = scale · readout.

    Every hidden layer passes its whole recording on. `scale` is a trainable output gain. Raises ValueError for depth < 1.
    """

    def __init__(self, laboratory: Laboratory, task: Shape, depth: int = 2, scale: float = 1.0, lead: Lead = ()):
        super().__init__()
        if depth < 1:
            raise ValueError(f"architecture.depth={depth} must be >= 1; use 2 for the paper's MNIST network")
        layers: list[PhysicalLayer] = []
        for level in range(depth):
            width = layers[-1].output_size if layers else task.features
            layers.append(laboratory.layer(width, task.classes if level == depth - 1 else None, lead))
        self.layers = nn.ModuleList(layers)
        self.scale = gain(scale, lead)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        for layer in self.layers:
            x = layer(x, via)
        return per_sample(self.scale, x) * x


class Skip(Multilayer):
    """Layers in a row with skip connections from the data: h_{l+1} = s_l · f(h_l, θ^l) + k_l · x, h_1 = x.

    s_l and k_l are trainable scalars, initially `through` and `skip`; x is resampled to the width of the recording. The
    last layer is read out on `classes` outputs, logits = scale · readout.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        depth: int = 3,
        scale: float = 1.0,
        through: float = 1.0,
        skip: float = 0.5,
        lead: Lead = (),
    ):
        super().__init__(laboratory, task, depth, scale, lead)
        self.through = nn.ParameterList(gain(through, lead) for _ in range(depth - 1))
        self.skip = nn.ParameterList(gain(skip, lead) for _ in range(depth - 1))

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        h = x
        for layer, s, k in zip(self.layers, self.through, self.skip, strict=False):
            y = layer(h, via)
            h = per_sample(s, y) * y + per_sample(k, x) * resample(x, y.shape[-1])
        y = self.layers[-1](h, via)
        return per_sample(self.scale, y) * y


class Ensemble(nn.Module):
    """`members` networks that differ in their parameters, their logits averaged; all in one batched call of each device.

    `member(laboratory, task, lead=…)` builds them. Optionally each reads the data in a shuffled order of its own
    (`reading="shuffled"`, fixed by `seed`) and, with `roll_classes`, member m has its class windows rolled by m places,
    so that no class always sits at the weakest end of the recording. Raises ValueError for members < 1.
    """

    order: Tensor | None
    window: Tensor | None

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        member: Callable[..., nn.Module] = Multilayer,
        members: int = 7,
        reading: Literal["raster", "shuffled"] = "raster",
        roll_classes: bool = False,
        seed: int = 0,
        lead: Lead = (),
    ):
        super().__init__()
        if members < 1:
            raise ValueError(f"architecture.members={members} must be >= 1; use 7 as in the paper")
        if reading not in ("raster", "shuffled"):
            raise ValueError(f"architecture.reading={reading} must be raster or shuffled")
        self.lead, self.members = len(lead), members
        self.body = member(laboratory, task, lead=(*lead, members))
        shuffle = torch.Generator().manual_seed(seed)
        order = torch.stack([torch.randperm(task.features, generator=shuffle) for _ in range(members)])
        window = torch.stack([torch.arange(task.classes).roll(m) for m in range(members)])
        self.register_buffer("order", order if reading == "shuffled" else None, persistent=False)  # (member, feature)
        self.register_buffer("window", window if roll_classes else None, persistent=False)  # (member, class)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = pick(copies(x, self.lead, self.members), self.order, self.lead)  # (*lead, member, ..., feature)
        return pick(self.body(x, via), self.window, self.lead).mean(self.lead)


class Multichannel(nn.Module):
    """`channels` networks side by side whose class recordings are added: logits = Σ_c logits_c; one batched call.

    `channel(laboratory, sizes, lead=…)` builds them. With `split` every channel gets its own part of the features, each
    `channels`-th one; else all of them. Raises ValueError for channels < 1 and for fewer features than channels.
    """

    parts: Tensor | None

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        channel: Callable[..., nn.Module] = Multilayer,
        channels: int = 4,
        split: bool = True,
        lead: Lead = (),
    ):
        super().__init__()
        if not 1 <= channels <= task.features:
            raise ValueError(
                f"architecture.channels={channels} must be >= 1 and <= {task.features}, the features; use 4"
            )
        self.lead, self.channels = len(lead), channels
        each = -(-task.features // channels) if split else task.features
        index = torch.arange(each) * channels + torch.arange(channels).unsqueeze(-1)  # (channel, feature)
        self.register_buffer("parts", index.clamp_max(task.features - 1) if split else None, persistent=False)
        self.body = channel(laboratory, Sizes(each, task.classes), lead=(*lead, channels))

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = pick(copies(x, self.lead, self.channels), self.parts, self.lead)  # (*lead, channel, ..., feature)
        return self.body(x, via).sum(self.lead)


class Hybrid(nn.Module):
    """Trainable digital linear layers around physical ones, co-trained: x → W_c x + w_c → channel c of physical layers → Σ_c.

    W_c (width, features) is the digital input layer of each of `channels` channels, built by `channel`. With
    `digital_output` the channels' read-outs, `hidden` numbers each, meet in a digital linear layer to the classes; else
    they are added, read out on the classes. `centre` is the initial offset of every drive (0.5 for a range of [0, 1]).
    """

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        channel: Callable[..., nn.Module] = Multilayer,
        channels: int = 4,
        width: int = 50,
        digital_output: bool = False,
        hidden: int = 10,
        centre: float = 0.0,
        lead: Lead = (),
    ):
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"architecture.{name}={value} must be >= 1")
        self.lead = len(lead)
        self.enter = Linear(task.features, width, (*lead, channels), centre)
        self.body = channel(
            laboratory, Sizes(width, hidden if digital_output else task.classes), lead=(*lead, channels)
        )
        self.leave = Linear(channels * hidden, task.classes, lead) if digital_output else None

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = self.enter(copies(x, self.lead, self.enter.weight.shape[self.lead]))  # (*lead, channel, ..., width)
        y = self.body(x, via)
        if self.leave is None:
            return y.sum(self.lead)
        return self.leave(y.movedim(self.lead, -2).flatten(-2))  # (*lead, ..., channel · hidden) → classes


class Linear(nn.Module):
    """W x + w for every copy: x (*lead, ..., inputs) → (*lead, ..., outputs); nn.Linear's initial values, offset `centre`."""

    def __init__(self, inputs: int, outputs: int, lead: Lead = (), centre: float = 0.0):
        super().__init__()
        spread = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(uniform((*lead, outputs, inputs), 0.0, spread))
        self.bias = nn.Parameter(uniform((*lead, outputs), centre, spread))

    def forward(self, x: Tensor) -> Tensor:
        between = x.shape[self.weight.dim() - 2 : -1]
        flat = x.reshape(*self.weight.shape[:-2], -1, x.shape[-1])
        y = flat @ self.weight.mT + self.bias.unsqueeze(-2)
        return y.reshape(*self.weight.shape[:-2], *between, y.shape[-1])


class LinearClassifier(Linear):
    """Multinomial logistic regression: no physics at all, the first reference of every experiment."""

    def __init__(self, laboratory: Laboratory, task: Shape, lead: Lead = ()):
        super().__init__(task.features, task.classes, lead)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        return super().forward(x)


class Mixer(nn.Module):
    """Patches that share one physical network, then a large one over all of their outputs (paper, Fig. 3).

    x (*lead, ..., features), an image of `image_shape`, is cut into square patches of `patch` pixels a side; each patch
    goes through the same physical system of about `width` outputs (*lead, ..., patches, width); all of them together
    drive the last system, read out on `classes` outputs; logits = scale · readout.

    Raises ValueError for a task without images and for a patch that does not divide the image.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        task: Shape,
        patch: int = 7,
        width: int = 100,
        scale: float = 1.0,
        lead: Lead = (),
    ):
        super().__init__()
        height, across = check_patch(task.image_shape, patch)
        self.patch, self.rows, self.columns = patch, height // patch, across // patch
        self.shared = laboratory.layer(patch * patch, lead=lead, width=width)
        self.last = laboratory.layer(self.rows * self.columns * self.shared.output_size, task.classes, lead)
        self.scale = gain(scale, lead)

    def forward(self, x: Tensor, via: Via = "train") -> Tensor:
        x = self.patches(x)  # (..., patch, pixel)
        x = self.shared(x, via)  # (..., patch, width)
        y = self.last(x.flatten(-2), via)  # (..., class)
        return per_sample(self.scale, y) * y

    def patches(self, x: Tensor) -> Tensor:
        """(..., features) → (..., patches, pixels per patch)."""
        p = self.patch
        x = x.unflatten(-1, (self.rows, p, self.columns, p))  # (..., row, y, column, x)
        return x.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def copies(x: Tensor, lead: int, count: int) -> Tensor:
    """(*lead, ..., n) → (*lead, count, ..., n) without copying."""
    return x.unsqueeze(lead).expand(*x.shape[:lead], count, *x.shape[lead:])


def pick(x: Tensor, index: Tensor | None, lead: int) -> Tensor:
    """Entries `index` (copy, k) of x (*lead, copy, ..., n), each copy its own: (*lead, copy, ..., k); None: all of x."""
    if index is None:
        return x
    index = index.reshape(len(index), *(1,) * (x.dim() - lead - 2), index.shape[-1])
    return x.gather(-1, index.expand(*x.shape[:-1], -1))


def check_patch(image_shape: tuple[int, int] | None, patch: int) -> tuple[int, int]:
    """The image's height and width; refuse a patch that does not divide them."""
    if image_shape is None:
        raise ValueError(
            "architecture=mixer cuts images into patches, and this task has none; use architecture=multilayer"
        )
    if patch < 1 or image_shape[0] % patch or image_shape[1] % patch:
        divisors = [d for d in range(1, min(image_shape) + 1) if not (image_shape[0] % d or image_shape[1] % d)]
        raise ValueError(
            f"architecture.patch={patch} must divide the image of {image_shape[0]}×{image_shape[1]} pixels; use one of {divisors}"
        )
    return image_shape
