"""The demo: seeds in one batch, a verdict computed from the numbers, files that explain themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pnn.config import checked
from pnn.demo import MODES, build, demo, mean_and_error, verdict
from pnn.tasks import Digits


@pytest.fixture(scope="module")
def small() -> dict:
    return checked(
        "demo", ["seeds=3", "epochs=2", "gaps=[0.4]", "task.batch_size=128", "system.device_steps=8", "threads=1"]
    )


def test_the_demo_writes_its_numbers_and_a_picture(small: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = demo({**small, "out": str(tmp_path / "demo")})
    printed = capsys.readouterr().out
    assert json.loads((tmp_path / "demo/demo.json").read_text()) == json.loads(json.dumps(report))
    assert (tmp_path / "demo/demo.png").stat().st_size > 10_000
    (entry,) = report["gaps"]
    assert entry["gap"] == 0.4
    for mode in MODES:
        assert len(entry["modes"][mode]["device"]) == 3
    for word in ("reality gap 0.4", "physics-aware (PAT)", "logistic regression", "identity", "cos(gradient", "shown"):
        assert word in printed
    assert report["references"]["logistic_regression"] > 0.9


def test_every_seed_is_the_network_and_device_it_would_be_alone(small: dict) -> None:
    task = Digits()
    task.setup()
    x = task.test[0][:5]
    together, laboratory = build(small, task, 0.4, "pat")
    for index in range(small["seeds"]):
        alone, own = build({**small, "seed": small["seed"] + index, "seeds": 1}, task, 0.4, "pat")
        for mine, theirs in zip(laboratory.devices, own.devices, strict=True):
            assert torch.equal(mine.system.nonlinearity[index], theirs.system.nonlinearity[0])
        with torch.no_grad():
            for a, b in zip(alone.parameters(), together.parameters(), strict=True):
                a.copy_(b[index : index + 1])
            pair = [net(x.expand(n, *x.shape), "device") for net, n in ((together, small["seeds"]), (alone, 1))]
        torch.testing.assert_close(pair[0][index], pair[1][0])


def test_seeds_do_not_leak_into_one_another(small: dict) -> None:
    task = Digits()
    task.setup()
    network, _ = build(small, task, 0.4, "pat")
    logits = network(task.test[0][:5].expand(3, 5, 64), "train")
    logits[0].sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad[0].abs().sum() > 0 and parameter.grad[1:].abs().sum() == 0


def test_mean_and_standard_error() -> None:
    mean, error = mean_and_error([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert error == pytest.approx((5 / 3 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("difference", "error", "words"),
    [(0.02, 0.009, "shown: A"), (0.02, 0.01, "not shown"), (-0.02, 0.011, "not shown"), (-0.03, 0.01, "shown: B")],
)
def test_the_verdict_needs_two_standard_errors(difference: float, error: float, words: str) -> None:
    assert verdict(difference, error, "A", "B").startswith(words)
