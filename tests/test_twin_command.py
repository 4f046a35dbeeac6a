"""pnn-twin end to end: from a device and from a file to a twin, its card and a picture; mistakes end with exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from pnn import twin as command
from pnn.build import build
from pnn.calibrate import calibrate
from pnn.config import checked
from pnn.errors import UserError
from pnn.systems import CoupledOscillators
from pnn.twins import load

SHORT = ["inputs=4", "outputs=4", "threads=1", "model.measure.samples=200"]
QUICK = ["model.widths=[8]", "model.epochs=2"]


def run(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """The command as a user types it; its exit code."""
    monkeypatch.setattr(sys, "argv", ["pnn-twin", *overrides])
    try:
        command.main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def measured(path: Path, columns: int = 3, theta: int = 0, rows: int = 120, seed: int = 0) -> Path:
    """Measurements of a bent linear device, twice, with noise."""
    random = np.random.default_rng(seed)
    M = np.random.default_rng(9).standard_normal((columns + theta, 2))
    x, b = random.uniform(-1, 1, (rows, columns)), random.uniform(-1, 1, (rows, theta))
    y = np.tanh(np.c_[x, b] @ M)
    arrays = {"x": x, "y": y + 0.01 * random.standard_normal(y.shape), "y2": y + 0.01 * random.standard_normal(y.shape)}
    np.savez(path, **arrays, **({"theta": b} if theta else {}))
    return path


@pytest.mark.parametrize("model", ["linear", "quadratic", "mlp", "grey_box"])
def test_from_a_device_to_a_twin_and_its_card(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    extra = QUICK if model == "mlp" else []
    assert run(monkeypatch, f"model={model}", "out=run", *SHORT, *extra) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "run"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.txt",
        "card.json",
        "card.png",
        "config.yaml",
        "environment.json",
        "twin.pt",
    ]
    assert (folder / "card.png").stat().st_size > 20_000
    card = json.loads((folder / "card.json").read_text())
    name = card["model"]
    assert {"Linear", "Quadratic", "nominal", name} == set(card["fits"])
    assert card["measurements"] == {
        "fitted": 180,
        "held_out": 20,
        "visited": 0,
        "repeats": 2,
        "device_calls": 2,
        "device_samples": 400,
    }
    assert [p["measurements"] for p in card["learning_curve"][name]] == [22, 45, 90, 180]
    assert card["learning_curve"][name][-1]["error"] == card["fits"][name]["error"]
    for fit in card["fits"].values():
        assert fit["noise"] == card["fits"][name]["noise"] > 0
        assert set(fit["jacobian"]) == {f"{t}{end}" for t in ("x", "coupling", "drive") for end in ("", "_cosine")}
    for word in (name, "Linear", "nominal", "noise", "bias", "∂f/∂x", "400 records in 2 device calls"):
        assert word in printed
    assert f" model={model} twin=" in printed
    twin = load(folder / "twin.pt", CoupledOscillators(4, 4))
    assert twin.fitted and torch.load(folder / "twin.pt", weights_only=True)["pnn_twin"]["seed"] == 0
    assert OmegaConf.load(folder / "config.yaml").model._target_ == f"pnn.twins.{name}"


def test_the_command_that_it_prints_trains_with_the_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["system=oscillating_plate", "system.modes=9", "device=plate", "model=linear", "model.measure.samples=100"]
    sizes = ["inputs=64", "outputs=64", "curve=false", f"out={tmp_path}/twin"]
    assert run(monkeypatch, *asked, *sizes) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next"))
    assert line.startswith("next, for layers of 64 inputs and 64 outputs: pnn-train ")
    config = checked("train", line.partition("pnn-train ")[2].split())
    experiment = build(config)
    calibrate(experiment.laboratory, config)
    (bench,) = experiment.laboratory.benches
    assert bench.model.fitted and bench.device.ledger.calls == 0 and bench.system.frequency.shape[-1] == 9


def test_the_grey_box_is_the_best_of_them_on_a_device_with_a_gap() -> None:
    card = command.twin(checked("twin", ["model=grey_box", "device.gap=0.4", "curve=false", *SHORT]))
    fits = card["fits"]
    assert fits["GreyBox"]["bias"] < 0.3 * min(fits[other]["bias"] for other in ("Linear", "Quadratic", "nominal"))
    assert fits["GreyBox"]["jacobian"]["x"] < 0.5 * fits["nominal"]["jacobian"]["x"]
    assert card["learning_curve"] == {}
    assert list(Path("outputs/twin").iterdir())


def test_the_slot_names_the_device_of_that_layer() -> None:
    from pnn.devices import lab

    bench = command.from_device(
        checked("twin", ["slot=2", "seed=3", *SHORT, *QUICK]),
        {"samples": 4, "repeats": 1, "plan": "uniform"},
        lambda system: None,  # type: ignore[arg-type,return-value]
    )
    same = lab(CoupledOscillators(4, 4), gap=0.2, seed=3, slot=2)
    assert torch.equal(bench.device.system.onsite, same.system.onsite)
    assert not torch.equal(same.system.onsite, lab(CoupledOscillators(4, 4), gap=0.2, seed=3).system.onsite)


def test_visited_inputs_are_judged_and_sampled(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "seen.npz", x=0.5 + 0.1 * random.standard_normal((60, 4)))
    overrides = ["model=linear", "visited=seen.npz", "curve=false", *SHORT]
    uniform = command.twin(checked("twin", overrides))
    seen = command.twin(checked("twin", [*overrides, "model.measure.plan=visited"]))
    assert uniform["measurements"]["visited"] == 60
    assert seen["measurements"]["visited"] == 6 and seen["measurements"]["fitted"] < 54  # judged on rows of their own
    assert uniform["fits"]["Linear"]["visited"]["bias"] != uniform["fits"]["Linear"]["bias"]
    error = [card["fits"]["Linear"]["visited"]["error"] for card in (uniform, seen)]
    assert error[1] < error[0]


@pytest.mark.parametrize(("model", "theta"), [("linear", 0), ("mlp", 2)])
def test_from_a_file_without_a_device(model: str, theta: int, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    path = measured(tmp_path / "measurements.npz", theta=theta)
    extra = ["model.widths=[16]", "model.epochs=5"] if model == "mlp" else []
    card = command.twin(checked("twin", [f"data={path}", f"model={model}", "out=run", "threads=1", *extra]))
    assert card["sizes"] == {"inputs": 3, "outputs": 2, "parameters": theta}
    assert card["system"] == "Measured" and "nominal" not in card["fits"]
    assert 0.005 < card["fits"]["Linear"]["noise"] < 0.03 < card["fits"]["Linear"]["error"]
    assert card["fits"][card["model"]]["jacobian"] is None and "device_calls" not in card["measurements"]
    assert "twin of Measured" in capsys.readouterr().out


def test_a_grey_box_from_a_file_is_the_system_of_the_configuration(tmp_path: Path) -> None:
    """Measurements of oscillators written to a file, couplings and drives flattened."""
    system = CoupledOscillators(3, 3, duration=1.0)
    device = system.perturbed(0.3, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(80, 3, generator=generator) - 1
    theta = [spec.sample((80,), generator) for spec in system.parameters_spec]
    y = device(x, *theta).numpy()
    np.savez(tmp_path / "m.npz", x=x, theta=np.c_[theta[0].flatten(1), theta[1]], y=y, y2=y)
    grey = ["model=grey_box", "system.duration=1.0", "threads=1", "curve=false"]
    card = command.twin(checked("twin", ["data=m.npz", *grey]))
    assert card["fits"]["GreyBox"]["error"] < 0.01 < card["fits"]["Linear"]["error"]
    measured(tmp_path / "other.npz", theta=2)
    with pytest.raises(UserError, match="CoupledOscillators has 30 parameters, and the file has 2 theta columns"):
        command.twin(checked("twin", ["data=other.npz", *grey]))


def test_visited_inputs_of_another_width_are_refused(tmp_path: Path) -> None:
    measured(tmp_path / "m.npz")
    measured(tmp_path / "v.npz", columns=4)
    with pytest.raises(UserError, match="visited=v.npz has 4 inputs, and data= has 3"):
        command.twin(checked("twin", ["data=m.npz", "visited=v.npz", "model=linear"]))
    measured(tmp_path / "same.npz", seed=1)
    card = command.twin(checked("twin", ["data=m.npz", "visited=same.npz", "model=linear", "curve=false"]))
    assert card["measurements"]["visited"] == 120


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=nominal"], "model=nominal has nothing to fit; use model=linear"),
        (["data=nowhere.csv"], "data=nowhere.csv does not exist"),
        (["data=bad.csv"], "column x1 is nan in row 7"),
        (["visited=nowhere.npz"], "visited=nowhere.npz does not exist"),
        (["held_out=1.5"], "held_out=1.5 must be > 0 and < 1; use 0.1"),
        (["inputs=0"], "inputs=0 must be >= 1; use 8"),
        (["outputs=two"], "outputs=two must be a whole number"),
        (["slot=-1"], "slot=-1 must be >= 0"),
        (["threads=0"], "threads=0 must be >= 1"),
        (["model.measure.samples=1"], "model.measure.samples=1 must be >= 2"),
        (["model.measure.samples=many"], "model.measure.samples=many must be a whole number"),
        (["model.measure.plan=grid"], "model.measure.plan=grid must be one of uniform, lowpass, visited"),
        (["model.measure.plan=visited"], "give visited=FILE"),
        (["model.measure.repeats=3"], "model.measure.repeats=3 must be"),
        (["model.epochs=0"], "model.epochs=0 must be >= 1"),
        (["model.epochs=x"], "model.epochs=x must be a whole number"),
        (["model.widths=[0]"], "model.widths=[0] must be"),
        (["model=grey_box", "inputs=40", "outputs=40"], "fits 1 to 600 constants"),
        (["model=mlpp"], "no such option (did you mean mlp?)"),
        (["held_ot=0.2"], "there is no key held_ot; did you mean held_out?"),
        (["device.gap=2"], "device.gap=2 must be"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_with_exit_code_2(
    overrides: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    rows = ["x0,x1,y0", *(f"{n},{'nan' if n == 7 else n * n},{2 * n}" for n in range(1, 30))]
    (tmp_path / "bad.csv").write_text("\n".join(rows))
    assert run(monkeypatch, "out=run", *overrides) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("")
    with pytest.raises(UserError, match="out=full is not an empty folder"):
        command.twin(checked("twin", ["out=full", *SHORT, *QUICK]))


def test_help_and_cfg_explain_themselves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    run(monkeypatch, "--help")
    shown = capsys.readouterr().out
    assert "measurements.csv" in shown and "model: " in shown
    run(monkeypatch, "--cfg", "job")
    assert "held_out: 0.1" in capsys.readouterr().out
