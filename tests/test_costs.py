"""What one inference takes: counted against the network's own sizes, priced by hand, and never guessed."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pnn.budget import Budget, budget
from pnn.build import Experiment, build
from pnn.config import checked, conf_dir
from pnn.errors import UserError
from pnn.reporting.costs import MARKS, cost, equal_accuracy, laboratory_seconds, newest_cost, prices, sheet
from pnn.reporting.folders import find
from pnn.reporting.groups import Group, group
from pnn.reporting.tables.costs import inference_table, price_table, training_table
from pnn.systems import SHG, CoupledOscillators, ElectronicOscillator, Identity, OscillatingPlate

SMALL = ["task=digits", "model=nominal", "device=ideal"]


def built(*overrides: str) -> Experiment:
    return build(checked("train", [*SMALL, *overrides]))


def counted(experiment: Experiment) -> Budget:
    return budget(experiment.network, experiment.laboratory, experiment.task.features)


def test_a_chain_of_masked_layers_is_counted() -> None:
    """64 pixels: a product a mask value in each layer, ten for the output gain."""
    found = counted(built("system=electronic_oscillator", "architecture=multilayer", "architecture.depth=2"))
    assert found.digital_macs == 2 * 64 + 10
    for use in found.layers.values():
        assert (use.system, use.drive, use.record, use.records, use.encoder) == ("ElectronicOscillator", 64, 64, 1, 128)
        assert use.record_seconds == pytest.approx(64e-6)
        circuit = ElectronicOscillator(64, 10)
        assert (use.model_macs, use.macs) == (circuit.operations(), circuit.converged().operations())
        assert use.macs > use.model_macs


def test_members_channels_and_patches_are_records() -> None:
    ensemble = counted(built("system=electronic_oscillator", "architecture=ensemble", "architecture.members=3"))
    assert {use.records for use in ensemble.layers.values()} == {3}
    assert all(use.encoder == 3 * 128 for use in ensemble.layers.values())
    mixer = counted(built("architecture=mixer", "architecture.patch=4", "architecture.width=20"))
    assert [(u.drive, u.record, u.records) for u in mixer.layers.values()] == [(16, 20, 4), (80, 10, 1)]
    assert all(u.encoder == 0 and u.record_seconds is None for u in mixer.layers.values())  # couplings are physical


def test_digital_layers_are_counted() -> None:
    hybrid = counted(
        built("system=shg", "architecture=hybrid", "architecture.channels=2", "architecture.width=5",
              "architecture.channel.depth=1", "system.readout.normalise=none")
    )  # fmt: skip
    (use,) = hybrid.layers.values()
    assert (use.records, use.encoder) == (2, 2 * 2 * 100)
    assert hybrid.digital_macs == 2 * 5 * 64 + 2 * 100 + 2 * 10  # layers, masks, gains
    linear = counted(built("reference=linear_classifier"))
    assert (linear.digital_macs, linear.layers) == (640, {})


def test_counting_leaves_no_trace() -> None:
    """Neither a device call nor a random number, nor a changed layer: the network trains as if it had not been counted."""
    experiment = built("system=electronic_oscillator", "device=lab")
    layers = list(experiment.layers.values())
    before = [(layer.mode, layer.probe, layer.input_range, layer.penalty) for layer in layers]
    states = [copy.deepcopy(d.state_dict()) for d in experiment.laboratory.devices]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    counted(experiment)
    assert torch.equal(torch.rand(3), expected)
    assert [(layer.mode, layer.probe, layer.input_range) for layer in layers] == [b[:3] for b in before]
    for device, state in zip(experiment.laboratory.devices, states, strict=True):
        assert device.ledger.calls == 0
        assert torch.equal(device.state_dict()["generator"], state["generator"])
    x = torch.rand(2, 64)
    assert experiment.network(x, "train").shape == (2, 10)
    assert all(device.ledger.calls == 1 for device in experiment.laboratory.devices)


def test_records_last_as_long_as_their_systems_say() -> None:
    assert OscillatingPlate(48, 10).record_seconds == pytest.approx(1e-3)
    assert OscillatingPlate(48, 10, sampling_rate=96e3).record_seconds == pytest.approx(0.5e-3)
    assert ElectronicOscillator(100, 10, sample_time=2e-6).record_seconds == pytest.approx(2e-4)
    for system in (CoupledOscillators(4, 2), Identity(4), SHG(10, 5)):
        assert system.record_seconds is None


RATE = prices(conf_dir() / "costs.yaml")
PLATE: dict[str, Any] = {
    "inputs": 196, "outputs": 196, "trainable": 400, "system": "OscillatingPlate", "drive": 196, "record": 100,
    "records": 7, "record_seconds": 0.004, "macs": 50_000, "model_macs": 10_000, "encoder": 392,
}  # fmt: skip


def fake(
    folder: Path,
    accuracy: float,
    devices: list[dict[str, Any]] | None,
    *,
    architecture: str = "Multilayer",
    reference: str | None = None,
    hidden: int | None = None,
    mode: str = "pat",
    digital_macs: int = 1000,
    bits: int | None = None,
) -> Path:
    """A finished run with a device card; None: an older one, which does not say what an inference takes."""
    folder.mkdir(parents=True)
    config = {
        "name": "fig2_plate",
        "seed": 0,
        "reference": reference,
        "hidden": hidden,
        "device": {"gap": 0.05, "dac_bits": bits, "adc_bits": bits},
        "architecture": {"_target_": f"pnn.architectures.{architecture}"},
        "training": {"name": mode},
        "task": {"batch_size": 10},
        "trainer": {"max_epochs": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    card: dict[str, Any] = {"devices": {"a": {"trainable": 400}}}
    if devices is not None:
        card = {"digital_macs": digital_macs, "devices": {str(n): d for n, d in enumerate(devices)}}
    (folder / "devices.json").write_text(json.dumps(card))
    numbers = {"test_accuracy_device": accuracy, "test_accuracy_model": accuracy, "wall_seconds": 60.0}
    counts = {"device_calls": 12 if devices else 0, "device_samples": 7000, "parameters": 1200}
    (folder / "summary.json").write_text(json.dumps({**numbers, **counts}))
    return folder


def groups_of(folder: Path) -> list[Group]:
    return group(find([folder]).runs)


def test_an_inference_is_priced_by_its_parts(tmp_path: Path) -> None:
    fake(tmp_path / "a", 0.8, [PLATE, {**PLATE, "records": 1}], bits=10)
    (one,) = groups_of(tmp_path)
    found = cost(one.runs[0], RATE)
    assert found is not None
    assert (found.records, found.dac, found.adc, found.physical_macs) == (8, 8 * 196, 8 * 100, 100_000)
    assert (found.stored, found.physical) == (1200 - 16, 16)
    assert found.seconds == pytest.approx(8 * 0.004)
    conversions = 8 * 196 * 1024 * RATE["dac_step"] + 8 * 100 * 1024 * RATE["adc_step"]
    parts = (conversions, 8 * 0.004 * RATE.instruments["OscillatingPlate"].power)
    assert (found.converters, found.instrument) == pytest.approx(parts)
    assert found.digital == pytest.approx(1000 * RATE["mac"] + 1184 * RATE["memory"])
    assert found.energy == pytest.approx(sum(parts) + (found.digital or 0))
    assert laboratory_seconds(one, RATE) == pytest.approx(7000 * 0.004)


def test_converters_without_a_number_of_bits_take_the_assumed_one(tmp_path: Path) -> None:
    fake(tmp_path / "a", 0.8, [PLATE])
    found = cost(find([tmp_path]).runs[0], RATE)
    assert found is not None
    assert found.converters == pytest.approx(7 * (196 * RATE["dac_step"] + 100 * RATE["adc_step"]) * 2 ** RATE["bits"])


def test_what_has_no_scale_has_no_time_and_no_energy(tmp_path: Path) -> None:
    fake(tmp_path / "a", 0.8, [{**PLATE, "system": "CoupledOscillators", "record_seconds": None}])
    fake(tmp_path / "b", 0.8, [{**PLATE, "system": "SHG", "record_seconds": None}], mode="ideal")
    ideal, pat = sorted((g for g in groups_of(tmp_path)), key=lambda g: g.kind)
    unknown, optics = cost(pat.runs[0], RATE), cost(ideal.runs[0], RATE)
    assert unknown is not None and optics is not None
    assert (unknown.seconds, unknown.instrument, unknown.energy) == (None, None, None)
    assert (unknown.dac, laboratory_seconds(pat, RATE)) == (7 * 196, None)
    assert optics.seconds == pytest.approx(7 * (RATE.instruments["SHG"].seconds or 0)) and optics.energy


def test_older_folders_show_a_dash(tmp_path: Path) -> None:
    fake(tmp_path / "a", 0.8, None)
    groups = groups_of(tmp_path)
    assert cost(groups[0].runs[0], RATE) is None and laboratory_seconds(groups[0], RATE) is None
    (row,) = inference_table(groups, RATE).rows
    assert set(row[2:]) == {"—"}


def test_a_device_that_is_replaced_converts_nothing(tmp_path: Path) -> None:
    fake(tmp_path / "a", 0.8, [PLATE], reference="identity")
    found = cost(find([tmp_path]).runs[0], RATE)
    assert found is not None
    assert (found.dac, found.adc, found.records, found.seconds, found.converters) == (0, 0, 0, 0, 0)
    assert (found.digital_macs, found.physical_macs) == (51_000, 0)


def test_the_sheet_sets_the_physical_network_beside_digital_ones(tmp_path: Path) -> None:
    for mode in ("pat", "in_silico", "ideal"):
        fake(tmp_path / mode, 0.93, [PLATE], mode=mode)
    fake(tmp_path / "linear", 0.91, [], architecture="LinearClassifier", digital_macs=1960)
    groups = groups_of(tmp_path)
    assert [line.group.kind for line in sheet(groups, RATE)] == ["pat", "linear_classifier"]
    said = equal_accuracy(groups, RATE)
    assert said == (
        "At least as accurate as the physical network (93.00 %) without physics: none that was run "
        "(linear classifier, no physics: 91.00 %; perceptron with one hidden layer, no physics: not run)."
    )
    assert [row[0] for row in training_table(groups, RATE).rows] == [
        "physics-aware (PAT), gap 0.05",
        "in silico, gap 0.05",
        "ideal (oracle), gap 0.05",
    ]
    fake(tmp_path / "mlp", 0.95, [], architecture="Perceptron", digital_macs=20_000)
    groups = groups_of(tmp_path)
    said = equal_accuracy(groups, RATE)
    ours, best = (
        next(line.cost for line in sheet(groups, RATE) if line.group.kind == k) for k in ("pat", "perceptron")
    )
    assert said is not None and ours is not None and best is not None and ours.energy and best.energy
    assert "perceptron with one hidden layer, no physics (95.00 %)" in said
    ratio = ours.energy / best.energy
    assert ratio > 1
    assert float(said.split(", ")[-1].removesuffix(" times as much.").replace(",", "")) == pytest.approx(
        ratio, rel=5e-3
    )


def test_every_constant_has_a_source_and_says_how_sure_it_is() -> None:
    for entry in (*RATE.constants.values(), *RATE.instruments.values()):
        assert entry.source and entry.mark in MARKS
    assert RATE["mac"] == pytest.approx(3.7e-12 + 0.9e-12)
    assert len(price_table(RATE).rows) == len(RATE.constants) + len(RATE.instruments)


@pytest.mark.parametrize(
    "change",
    [
        {"constants": {}},
        {"instruments": 3},
        {"instruments": {"SHG": {"power": 1}}},
        {"instruments": {"SHG": {"power": 1, "seconds": None, "mark": "sure", "source": ""}}},
    ],
)
def test_spoilt_constants_are_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    content = yaml.safe_load((conf_dir() / "costs.yaml").read_text())
    path = tmp_path / "costs.yaml"
    path.write_text(yaml.safe_dump(content | change))
    with pytest.raises(UserError, match=r"costs\.yaml"):
        prices(path)


def test_a_run_folder_says_what_an_inference_takes(tmp_path: Path) -> None:
    """pnn-train writes it, and the report reads the same numbers back."""
    from pnn.train import write_description

    experiment = built("system=electronic_oscillator", "architecture=multilayer", "architecture.depth=1")
    write_description(tmp_path, experiment)
    summary = {"test_accuracy_device": 0.5, "test_accuracy_model": 0.5, "device_calls": 3, "device_samples": 1000}
    parameters = sum(p.numel() for p in experiment.network.parameters())
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "parameters": parameters, "wall_seconds": 1}))
    (one,) = groups_of(tmp_path)
    found = cost(one.runs[0], RATE)
    assert found is not None
    assert (found.dac, found.adc, found.digital_macs, found.stored) == (64, 64, 64 + 10, parameters)
    assert found.seconds == pytest.approx(64e-6)
    assert laboratory_seconds(one, RATE) == pytest.approx(0.064)


def test_the_smallest_perceptron_that_is_as_accurate_counts(tmp_path: Path) -> None:
    fake(tmp_path / "pat", 0.93, [PLATE])
    for hidden, accuracy in ((2, 0.80), (8, 0.92)):
        fake(tmp_path / f"{hidden}", accuracy, [], reference="perceptron", hidden=hidden, digital_macs=206 * hidden)
    line = sheet(groups_of(tmp_path), RATE)[-1]
    assert line.group.label == "perceptron with 8 hidden units, no physics"  # none is enough: the most accurate
    for hidden, accuracy in ((16, 0.94), (32, 0.96)):
        fake(tmp_path / f"{hidden}", accuracy, [], reference="perceptron", hidden=hidden, digital_macs=206 * hidden)
    groups = groups_of(tmp_path)
    lines = sheet(groups, RATE)
    assert [line.group.kind for line in lines] == ["pat", "perceptron"]
    assert lines[-1].group.settings["hidden"] == 16 and lines[-1].cost.digital_macs == 206 * 16
    assert "perceptron with 16 hidden units, no physics (94.00 %)" in (equal_accuracy(groups, RATE) or "")


def test_every_record_has_its_operations() -> None:
    experiment = built("system=electronic_oscillator", "architecture=ensemble", "architecture.members=3")
    system = experiment.laboratory.benches[0].system
    use = next(iter(counted(experiment).layers.values()))
    assert (use.macs, use.model_macs) == (3 * system.converged().operations(), 3 * system.operations())


def test_parameters_of_a_replaced_device_stay_in_the_apparatus(tmp_path: Path) -> None:
    fake(tmp_path / "a", 0.8, [PLATE], reference="identity")
    found = cost(find([tmp_path]).runs[0], RATE)
    assert (found.stored, found.physical) == (1200 - 8, 8)


def test_each_converter_has_its_own_bits(tmp_path: Path) -> None:
    path = fake(tmp_path / "a", 0.8, [PLATE]) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"device": {"gap": 0.05, "dac_bits": 8, "adc_bits": 12}}))
    found = cost(find([tmp_path]).runs[0], RATE)
    assert found.converters == pytest.approx(7 * (196 * 2**8 * RATE["dac_step"] + 100 * 2**12 * RATE["adc_step"]))


def test_how_many_times_less_is_more_than_one(tmp_path: Path) -> None:
    fake(tmp_path / "pat", 0.93, [PLATE])
    fake(tmp_path / "mlp", 0.95, [], architecture="Perceptron", digital_macs=10**13)
    pat, mlp = groups_of(tmp_path)
    ratio = newest_cost(mlp, RATE).energy / newest_cost(pat, RATE).energy
    said = equal_accuracy([pat, mlp], RATE).split(", ")[-1]
    assert ratio > 1 and said.endswith(" times less.")
    assert float(said.removesuffix(" times less.").replace(",", "")) == pytest.approx(ratio, rel=5e-3)


def test_laboratory_time_is_the_mean_of_the_runs(tmp_path: Path) -> None:
    for seed, samples in enumerate((7000, 9000)):
        folder = fake(tmp_path / str(seed), 0.8, [PLATE])
        for name, new in (("config.yaml", {"seed": seed}), ("summary.json", {"device_samples": samples})):
            (folder / name).write_text(json.dumps(yaml.safe_load((folder / name).read_text()) | new))
    (one,) = groups_of(tmp_path)
    assert laboratory_seconds(one, RATE) == pytest.approx(8000 * 0.004)


def test_the_inference_table_keeps_memory_and_apparatus_apart(tmp_path: Path) -> None:
    fake(tmp_path / "a", 0.8, [PLATE])
    table = inference_table(groups_of(tmp_path), RATE)
    row = dict(zip(table.heads, table.rows[0], strict=True))
    assert row["parameters: in memory + in the apparatus"] == "1,192 + 8" and row["DAC + ADC"] == "1,372 + 700"


def test_the_newest_card_counts(tmp_path: Path) -> None:
    for seed, records in enumerate((7, 9)):
        folder = fake(tmp_path / str(seed), 0.8, [PLATE | {"records": records}])
        (folder / "config.yaml").write_text(
            json.dumps(yaml.safe_load((folder / "config.yaml").read_text()) | {"seed": seed})
        )
        os.utime(folder / "summary.json", (1000 + seed, 1000 + seed))
    (one,) = groups_of(tmp_path)
    assert newest_cost(one, RATE).records == 9


def test_a_power_that_yaml_reads_as_text_is_a_mistake(tmp_path: Path) -> None:
    text = (conf_dir() / "costs.yaml").read_text().replace("power: 50.0", "power: 5e1")
    (tmp_path / "costs.yaml").write_text(text)
    with pytest.raises(UserError, match=r"SHG.power=5e1 must be a number >= 0; YAML wants a dot"):
        prices(tmp_path / "costs.yaml")
