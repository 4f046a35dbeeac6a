"""Before training: fit the digital models of a laboratory to measurements of its devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pnn.errors import UserError
from pnn.layers import Bench, Laboratory
from pnn.rules import Config
from pnn.twins import Twin, load, sample, save


def unfitted(laboratory: Laboratory) -> list[Bench]:
    """The benches whose model is a digital twin without data yet."""
    return [bench for bench in laboratory.benches if isinstance(bench.model, Twin) and not bench.model.fitted]


def calibrate(laboratory: Laboratory, config: Config, folder: Path | None = None) -> list[dict[str, Any]]:
    """Fit every digital twin, from the file `config["twin"]` or by driving its device; one entry per twin.

    The measurements are drawn with `config["seed"]` and counted by the device's ledger. With a `folder` every twin is
    written there as twin-<n>.pt. Raises UserError for a file that does not fit.
    """
    if config.get("twin"):
        return adopt(unfitted(laboratory), str(config["twin"]))
    report = []
    for number, bench in enumerate(unfitted(laboratory)):
        twin = bench.model
        assert isinstance(twin, Twin)
        measure = config["model"]["measure"]
        data = sample(
            bench.device,
            bench.system,
            measure["samples"],
            plan=measure["plan"],
            repeats=measure["repeats"],
            seed=config["seed"] + number,
        )
        twin.fit(data, seed=config["seed"])
        report.append({"twin": number, "measured": measure})
        if folder is not None:
            save(twin, folder / f"twin-{number}.pt", {"measured": measure})
    return report


def adopt(benches: list[Bench], path: str) -> list[dict[str, Any]]:
    """Give every twin the state of the fitted one in the file; one entry per twin. Several devices are worth a word."""
    for bench in benches:
        twin = bench.model
        assert isinstance(twin, Twin)
        found = load(path, bench.system)
        if type(found) is not type(twin):
            raise UserError(
                f"twin={path} holds a {type(found).__name__}, and model is {type(twin).__name__}; "
                "choose the model that was fitted"
            )
        try:
            twin.load_state_dict(found.state_dict())
        except RuntimeError as error:
            raise UserError(
                f"twin={path} was fitted with {found.options}, and model says {twin.options}; repeat those options"
            ) from error
    if (count := len({id(bench.device) for bench in benches})) > 1:
        print(
            f"twin={path} was fitted to one device and now stands for {count}; with one_device=true one serves every layer",
            file=sys.stderr,
        )
    return [{"twin": number, "file": path} for number, _ in enumerate(benches)]
