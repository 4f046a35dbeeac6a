"""pnn-demo: in silico against physics-aware against ideal training on a device with a reality gap, over several seeds.

All seeds are one network with a leading dimension, so ten cost little more than one. Every seed has its own device,
initial parameters, data order and input noise; the three modes share all of them, so differences are paired.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from pnn.config import run_command
from pnn.errors import UserError
from pnn.modes import MODE_LABELS
from pnn.rules import Config

MODES = tuple(MODE_LABELS)


def main() -> None:
    """Entry point of `pnn-demo`."""
    run_command("demo", demo)


@dataclass(frozen=True)
class Trained:
    """One mode at one gap: accuracies per seed, and the gradients' alignment with `ideal` at its final parameters."""

    device: list[float]
    model: list[float]
    gap_error: list[float]
    cosines: dict[str, dict[str, float]]


def demo(config: Config) -> dict[str, Any]:
    """Run the study; prints one table per gap, writes demo.json and demo.png, and returns the content of demo.json."""
    import torch

    from pnn import runs
    from pnn.build import instantiate
    from pnn.figures import demo_figure
    from pnn.memory import keep_freed_memory

    if not isinstance(config["gaps"], list):
        raise UserError(f"gaps={config['gaps']} must be a list; use gaps=[{config['gaps']}]")
    keep_freed_memory()
    start = time.perf_counter()
    folder = runs.new_folder(config["out"], config["name"])
    torch.set_num_threads(config["threads"])
    task = instantiate(config["task"])
    task.prepare_data()
    task.setup()
    references = reference_accuracies(config, task)
    bar = _bar(len(config["gaps"]) * len(MODES) * config["epochs"])
    results = {gap: {mode: train(config, task, gap, mode, bar) for mode in MODES} for gap in config["gaps"]}
    bar.close()
    report = summarise(config, results, references)
    report |= {
        "seconds": round(time.perf_counter() - start, 1),
        "environment": runs.environment(["pnn-demo"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / "demo.json", report)
    demo_figure(report, folder / "demo.png")
    print(render(report))
    print(f"\npicture: {folder / 'demo.png'}    numbers: {folder / 'demo.json'}    {report['seconds']} s")
    print("next:    pnn-train experiment=digits training=pat device.gap=0.4    one of these networks as a full run")
    print("         pnn-train experiment=fig3_fashion_mnist                    the paper's Fig. 3 (under an hour)")
    return report


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="training", unit="epoch", leave=False, disable=None)


def build(config: Config, task: Any, gap: float, mode: str) -> tuple[Any, Any]:
    """The network of all seeds, with one stacked device per layer, and its laboratory."""
    import torch

    from pnn.alignment import MODES as TRANSFORMS
    from pnn.build import instantiate, physics
    from pnn.devices import SimulatedDevice, lab
    from pnn.layers import Laboratory
    from pnn.systems import System, stack

    seeds = range(config["seed"], config["seed"] + config["seeds"])

    def devices(system: System, slot: int) -> SimulatedDevice:
        return SimulatedDevice(stack([lab(system, gap=gap, seed=seed, slot=slot).system for seed in seeds]))

    laboratory = Laboratory(
        **physics(config["system"]),
        device=devices,
        model=instantiate(config["model"]),
        mode=TRANSFORMS[mode],
    )
    torch.manual_seed(config["seed"])
    try:
        return instantiate(config["architecture"])(laboratory, task, lead=(len(seeds),)), laboratory
    except (ValueError, TypeError) as error:
        raise UserError(f"the demo cannot run this composition: {error}") from error


def train(config: Config, task: Any, gap: float, mode: str, bar: Any) -> Trained:
    """Train all seeds in one mode at one gap and judge them on their devices. The test set is scored once."""
    import torch
    from torch.nn import functional

    from pnn.alignment import gradient_alignment
    from pnn.build import instantiate

    network, laboratory = build(config, task, gap, mode)
    x, y = task.train
    n, S, B = len(y), config["seeds"], config["task"]["batch_size"]
    steps = math.ceil(n / B)
    optimiser, schedule = instantiate(config["optimizer"]).build(network, steps * config["epochs"])
    draw_of = torch.Generator().manual_seed(config["seed"])
    for _ in range(config["epochs"]):
        order = torch.stack([torch.randperm(n, generator=draw_of) for _ in range(S)])  # (seed, sample)
        for picked in order.split(B, dim=1):
            clean = x[picked]  # (seed, batch, feature)
            noisy = clean + config["input_noise"] * torch.randn(clean.shape, generator=draw_of)
            logits = network(noisy, "train")  # (seed, batch, class)
            loss = functional.cross_entropy(logits.flatten(0, 1), y[picked].flatten()) * S
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        bar.set_postfix_str(f"gap {gap:g}, {MODE_LABELS[mode]}, loss {float(loss.detach()) / S:.3f}")
        bar.update()
    test_x, test_y = task.test
    with torch.no_grad():
        spread = test_x.expand(S, *test_x.shape)
        on = {via: network(spread, via) for via in ("device", "model")}
    accuracy = {via: (logits.argmax(-1) == test_y).double().mean(-1).tolist() for via, logits in on.items()}
    error = (on["device"] - on["model"]).flatten(1).norm(dim=1) / on["device"].flatten(1).norm(dim=1)
    sample = [(x[:256].expand(S, -1, -1), y[:256])]
    cosines: dict[str, dict[str, float]] = {}
    for row in gradient_alignment(network, laboratory.devices, sample, lead=1):
        cosines.setdefault(row.mode, {})[row.layer] = float(row.cosine.mean())
    return Trained(accuracy["device"], accuracy["model"], error.tolist(), cosines)


def reference_accuracies(config: Config, task: Any) -> dict[str, float]:
    """Digital references on the same split: logistic regression, and the network with every device the identity."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from torch.nn import functional

    from pnn.build import instantiate
    from pnn.devices import lab
    from pnn.encodings import Mask
    from pnn.gradients import in_silico
    from pnn.layers import Laboratory
    from pnn.systems import Identity
    from pnn.twins import nominal

    (x, y), (test_x, test_y) = task.train, task.test
    regression = LogisticRegression(max_iter=2000).fit(x.numpy(), y.numpy())
    torch.manual_seed(config["seed"])
    network = instantiate(config["architecture"])(Laboratory(Identity, lab, nominal, in_silico, encoding=Mask), task)
    steps = config["epochs"] * math.ceil(len(y) / config["task"]["batch_size"])
    optimiser, schedule = instantiate(config["optimizer"]).build(network, steps)
    shuffle = torch.Generator().manual_seed(config["seed"])
    for _ in range(config["epochs"]):
        for picked in torch.randperm(len(y), generator=shuffle).split(config["task"]["batch_size"]):
            optimiser.zero_grad(set_to_none=True)
            functional.cross_entropy(network(x[picked], "train"), y[picked]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        identity = float((network(test_x, "model").argmax(-1) == test_y).double().mean())
    return {
        "logistic_regression": float(regression.score(test_x.numpy(), test_y.numpy())),
        "identity": identity,
    }


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error of the mean."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / max(n - 1, 1)
    return mean, math.sqrt(variance / n)


def verdict(difference: float, error: float, first: str, second: str) -> str:
    """What a paired difference of accuracies shows: it must exceed two standard errors."""
    if difference > 2 * error:
        return f"shown: {first} beats {second} on the device"
    if difference < -2 * error:
        return f"shown: {second} beats {first} on the device"
    return f"not shown: the difference between {first} and {second} is within 2 standard errors"


def summarise(config: Config, results: dict[float, dict[str, Trained]], references: dict[str, float]) -> dict[str, Any]:
    """Means, standard errors, paired differences and verdicts of every gap, as plain containers."""
    gaps = []
    for gap, modes in results.items():
        rows = {}
        for mode, trained in modes.items():
            rows[mode] = {
                "device": trained.device,
                "model": trained.model,
                "device_mean_error": mean_and_error(trained.device),
                "model_mean_error": mean_and_error(trained.model),
                "output_gap": mean_and_error(trained.gap_error)[0],
            }
        paired = {}
        for other in ("in_silico", "ideal"):
            pairs = zip(modes["pat"].device, modes[other].device, strict=True)
            difference, error = mean_and_error([p - o for p, o in pairs])
            paired[other] = {
                "difference": difference,
                "error": error,
                "verdict": verdict(difference, error, "PAT", MODE_LABELS[other]),
            }
        gaps.append({"gap": gap, "modes": rows, "pat_minus": paired, "cosines": modes["in_silico"].cosines})
    keep = {key: config[key] for key in ("seeds", "seed", "epochs", "input_noise")}
    return {**keep, "split_seed": config["task"]["split_seed"], "references": references, "gaps": gaps}


def render(report: dict[str, Any]) -> str:
    """The tables as text."""
    lines = []
    for entry in report["gaps"]:
        lines += [
            "",
            f"reality gap {entry['gap']:g}, {report['seeds']} seeds and devices, 400 test digits (8 × 8)",
        ]
        lines += [f"  {'training':<22}{'on the device':>18}{'on its own model':>20}{'outputs differ by':>20}"]
        for mode in MODES:
            row = entry["modes"][mode]
            (d, de), (m, me) = row["device_mean_error"], row["model_mean_error"]
            device, model = f"{100 * d:.1f} ± {100 * de:.1f} %", f"{100 * m:.1f} ± {100 * me:.1f} %"
            lines += [f"  {MODE_LABELS[mode]:<22}{device:>18}{model:>20}{100 * row['output_gap']:>18.0f} %"]
        for other, pair in entry["pat_minus"].items():
            gain = f"{100 * pair['difference']:+.1f} ± {100 * pair['error']:.1f} points"
            lines += [f"  PAT − {MODE_LABELS[other]:<16}{gain:>20}   {pair['verdict']}"]
        for mode in ("in_silico", "pat"):
            values = " / ".join(f"{v:.2f}" for v in entry["cosines"][mode].values())
            lines += [f"  cos(gradient, ideal) by layer, {MODE_LABELS[mode]:<20} {values}"]
    r = report["references"]
    lines += [
        "",
        f"references: logistic regression {100 * r['logistic_regression']:.1f} %, "
        f"every device replaced by the identity {100 * r['identity']:.1f} %",
        "± is one standard error over seeds; cosines are at the in-silico-trained parameters. This demo is about the",
        "training method on an imperfect device, not about beating a digital classifier.",
    ]
    return "\n".join(lines).lstrip("\n")


if __name__ == "__main__":
    main()
