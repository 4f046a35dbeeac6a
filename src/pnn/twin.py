"""pnn-twin: drive a device (or read measurements), fit a digital twin, judge it, and write the twin and its card."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnn.config import run_command
from pnn.errors import UserError
from pnn.rules import Config

if TYPE_CHECKING:
    from torch import Tensor

    from pnn.systems.system import System
    from pnn.twins import Measurements, Twin

GUIDE = """\
This folder holds one digital twin of pnn.

  twin.pt           the fitted twin; train with it: pnn-train … model=NAME twin=<this folder>/twin.pt one_device=true
  card.json         how good it is: noise floor and bias, R², Jacobians, learning curve, cost in device calls
  card.png          the same as a picture
  config.yaml       the resolved configuration
  environment.json  command, git commit, package versions, machine
"""
#: Visited inputs on which the twin is judged, at most.
VISITED = 1000


def main() -> None:
    """Entry point of `pnn-twin`."""
    run_command("twin", twin)


@dataclass
class Bench:
    """What there is to fit and to judge with: measurements, and the device if there is one."""

    system: System
    data: Measurements
    device: Any = None
    visited: Measurements | None = None


def twin(config: Config) -> dict[str, Any]:
    """Measure, fit, judge, write; prints a table and returns the content of card.json."""
    import torch
    from omegaconf import OmegaConf

    from pnn import runs
    from pnn.build import instantiate
    from pnn.twins import save
    from pnn.twins.figure import card_figure

    start = time.perf_counter()
    folder = runs.new_folder(config["out"], config["name"])
    model = dict(config["model"])
    measure = model.pop("measure", None)
    if measure is None:
        raise UserError("model=nominal has nothing to fit; use model=linear, quadratic, mlp or grey_box")
    torch.set_num_threads(config["threads"])
    recipe = instantiate(model)
    bench = from_data(config, model) if config["data"] else from_device(config, measure, recipe)
    measured = time.perf_counter()
    fitted, card = fit_and_judge(lambda: recipe(bench.system), bench, config)
    about = {"source": config["data"] or "device", "seed": config["seed"], "plan": None if config["data"] else measure}
    card |= {"seconds": {"measuring": measured - start, "all": time.perf_counter() - start}}
    card |= {"environment": runs.environment(["pnn-twin", *sys.argv[1:]])}
    folder = runs.made(folder, config["out"], config["name"])
    save(fitted, folder / "twin.pt", about)
    runs.write_json(folder / "card.json", card)
    runs.write_json(folder / "environment.json", card["environment"])
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    (folder / "README.txt").write_text(GUIDE)
    card_figure(card, folder / "card.png")
    print(render(card))
    print(f"\ntwin: {folder / 'twin.pt'}    picture: {folder / 'card.png'}    {card['seconds']['all']:.1f} s")
    if not config["data"]:
        print(f"next, for layers of {config['inputs']} inputs and {config['outputs']} outputs: {_next(model, folder)}")
    return card


def _next(model: Config, folder: Path) -> str:
    """The command that trains with the twin, of the same system, device and model as this command line says."""
    same = [o for o in sys.argv[1:] if o.lstrip("+").startswith(("system", "device", "model."))]
    same = [o for o in same if not o.startswith("model.measure")]
    return " ".join(["pnn-train", *same, f"model={_group(model)}", f"twin={folder / 'twin.pt'}", "one_device=true"])


def from_data(config: Config, model: Config) -> Bench:
    """Measurements from a file; the system is known by its sizes only, except to the grey box."""
    import math

    from pnn.build import physics
    from pnn.twins import Measured, Measurements, from_file

    data = from_file(config["data"])
    visited = from_file(config["visited"]) if config["visited"] else None
    if visited is not None and visited.y.shape[1:] != data.y.shape[1:]:
        raise UserError(
            f"visited={config['visited']} has {visited.y.shape[1]} outputs, and data= has {data.y.shape[1]}"
        )
    if visited is not None and visited.x.shape[1:] != data.x.shape[1:]:
        raise UserError(f"visited={config['visited']} has {visited.x.shape[1]} inputs, and data= has {data.x.shape[1]}")
    if _group(model) != "grey_box":
        return Bench(Measured(data), data, visited=visited)
    system = physics(config["system"])["system"](data.x.shape[1], data.y.shape[1])
    specs = system.parameters_spec
    wanted = sum(math.prod(spec.shape) for spec in specs)

    def shaped(rows: Measurements) -> Measurements:
        found = rows.theta[0].shape[1] if rows.theta else 0
        if found != wanted:
            raise UserError(
                f"{type(system).__name__} has {wanted} parameters, and the file has {found} theta columns; "
                "write them flattened, in the system's order"
            )
        pieces = rows.theta[0].split([math.prod(s.shape) for s in specs], 1) if specs else ()
        theta = tuple(piece.reshape(-1, *spec.shape) for piece, spec in zip(pieces, specs, strict=True))
        return Measurements(rows.x, theta, rows.y, rows.y2)

    return Bench(system, shaped(data), visited=shaped(visited) if visited else None)


def from_device(config: Config, measure: Config, recipe: Callable[..., Twin]) -> Bench:
    """Measurements of the configured device by the sampling plan."""
    from pnn.build import instantiate, physics
    from pnn.twins import sample
    from pnn.twins.files import inputs_from_file

    seen = inputs_from_file(config["visited"]) if config["visited"] else None
    try:
        system = physics(config["system"])["system"](config["inputs"], config["outputs"])
        recipe(system)  # refuses sizes and options before the device is driven
        own = {key: value for key, value in config["device"].items() if key != "reuse"}
        device = instantiate(own)(system, slot=config["slot"])
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    judged = seen
    if seen is not None and measure["plan"] == "visited":
        seen, judged = apart(seen, config["held_out"], config["seed"])
    plan = {"plan": measure["plan"], "repeats": measure["repeats"], "seed": config["seed"], "visited": seen}
    data = sample(device, system, measure["samples"], **plan)
    visited = None
    if judged is not None:
        plan |= {"plan": "visited", "seed": config["seed"] + 1, "visited": judged}
        visited = sample(device, system, min(VISITED, len(judged[0])), **plan)
    return Bench(system, data, device, visited)


def apart(rows: tuple[Tensor, ...], fraction: float, seed: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Rows to fit a twin to, and `fraction` of them that no fit sees, to judge it on."""
    import torch

    order = torch.randperm(len(rows[0]), generator=torch.Generator().manual_seed(seed))
    held = max(2, round(fraction * len(order)))
    return tuple(t[order[held:]] for t in rows), tuple(t[order[:held]] for t in rows)


def fit_and_judge(make: Callable[[], Twin], bench: Bench, config: Config) -> tuple[Twin, dict[str, Any]]:
    """The twin fitted to the rows that are not held out, and its card beside the linear and quadratic fits."""
    from pnn.twins import Linear, Quadratic, learning_curve, twin_card

    seed, system = config["seed"], bench.system
    ledger = getattr(bench.device, "ledger", None)
    cost = {"device_calls": ledger.calls, "device_samples": ledger.samples} if ledger else {}
    train, test = bench.data.split(config["held_out"], seed)
    fitted = make().fit(train, seed=seed)
    name = type(fitted).__name__
    models: dict[str, Any] = {name: fitted}
    for other in (Linear, Quadratic):
        if other.__name__ != name:
            models |= _reference(other, system, train)
    if bench.device is not None:
        models["nominal"] = system.requires_grad_(False)
    curves = {}
    if config["curve"]:
        curves[name] = learning_curve(make, train, test, seed=seed)
        if "Linear" in models and name != "Linear":
            curves["Linear"] = learning_curve(lambda: Linear(system), train, test)
    about = {
        "options": fitted.options,
        "system": fitted.system_name,
        "sizes": {"inputs": fitted.input_size, "outputs": fitted.output_size, "parameters": fitted.theta_size},
        "measurements": {
            "fitted": len(train),
            "held_out": len(test),
            "visited": len(bench.visited) if bench.visited is not None else 0,
            "repeats": 1 if bench.data.y2 is None else 2,
            **cost,
        },
    }
    names = list(fitted.shapes)
    card = twin_card(models, test, visited=bench.visited, device=bench.device, names=names, curves=curves, about=about)
    for curve_name, curve in curves.items():
        score = card["fits"][curve_name]
        curve.append({"measurements": len(train), "error": score["error"], "bias": score["bias"]})
    if "Quadratic" in models:
        quadratic = models["Quadratic"]
        card["quadratic"] = {"components": quadratic.components, "complete": quadratic.complete}
    return fitted, card


def _reference(kind: type[Twin], system: System, train: Measurements) -> dict[str, Twin]:
    """A fit to compare with; left out where the system is too large for a closed form."""
    try:
        return {kind.__name__: kind(system).fit(train)}
    except UserError:
        return {}


def _group(model: Config) -> str:
    """The group option of a model's class."""
    name = str(model.get("_target_", "")).rpartition(".")[2]
    return {"GreyBox": "grey_box"}.get(name, name.lower())


def render(card: dict[str, Any]) -> str:
    """The card as a table."""
    m = card["measurements"]
    lines = [
        f"{card['model']} twin of {card['system']}, {card['sizes']['inputs']} inputs, {card['sizes']['outputs']} outputs: "
        f"fitted to {m['fitted']} measurements, judged on {m['held_out']} others",
        f"  {'model':<12}{'error':>10}{'noise':>10}{'bias':>10}{'R²':>10}{'∂f/∂x':>10}{'visited':>10}",
    ]
    for name, fit in card["fits"].items():
        jacobian = fit["jacobian"]["x"] if fit["jacobian"] else None
        visited = fit["visited"]["error"] if fit["visited"] else None
        cells = [_percent(v) for v in (fit["error"], fit["noise"], fit["bias"])]
        cells += [f"{fit['r2']:.5f}", _percent(jacobian), _percent(visited)]
        lines.append(f"  {name:<12}" + "".join(f"{cell:>10}" for cell in cells))
    lines += [f"  {sentence}" for sentence in card["verdict"]]
    if m["repeats"] == 1:
        lines.append("  the noise floor is unknown: measure every input twice")
    if "device_calls" in m:
        lines.append(f"  cost: {m['device_samples']} records in {m['device_calls']} device calls")
    lines.append(
        "  relative errors of a single measurement; error² = noise² + bias²; ∂f/∂x: relative error of the Jacobian"
    )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


if __name__ == "__main__":
    main()
