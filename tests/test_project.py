"""The wheel carries conf/ and works outside the clone; the Makefile explains itself; the README's library example runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_a_wheel_contains_conf_and_works_outside_the_clone(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    shipped = {p.relative_to(tmp_path / "site/pnn/conf") for p in (tmp_path / "site/pnn/conf").rglob("*.yaml")}
    assert shipped == {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")}
    check = "import pnn.config as c; from pnn.train import train; print(c.conf_dir()); train(c.checked('train', {!r}))"
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "out=run"]
    result = subprocess.run(
        [sys.executable, "-c", check.format(short)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "site/pnn/conf") in result.stdout
    assert (tmp_path / "run/summary.json").is_file()


def test_make_lists_every_target() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    for target in phony.group(1).split():
        assert f"make {target} " in listed


def test_the_library_in_five_lines() -> None:
    import pnn

    class Device:
        def respond(self, x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
            return (1.1 * theta * x).sin()

    theta = torch.full((3,), 0.5, requires_grad=True)
    x = torch.linspace(0, 1, 3)
    y = pnn.physics_aware(Device(), lambda x, theta: (theta * x).sin())(x, theta)
    y.sum().backward()
    assert torch.equal(y.detach(), Device().respond(x, theta.detach()))
    assert theta.grad is not None and torch.allclose(theta.grad, x * (0.5 * x).cos())


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import pnn

    with pytest.raises(AttributeError, match="no attribute 'pat'"):
        pnn.pat  # noqa: B018
