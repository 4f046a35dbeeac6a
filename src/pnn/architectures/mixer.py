"""Patches that share one physical network (paper, Fig. 3)."""

from __future__ import annotations

from torch import Tensor, nn

from pnn.architectures.wiring import Lead, Shape, gain
from pnn.layers import Laboratory, Via
from pnn.systems.system import per_sample


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
