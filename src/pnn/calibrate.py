"""Before training: fit the digital models of a laboratory to measurements of its devices."""

from __future__ import annotations

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
    report = []
    for number, bench in enumerate(unfitted(laboratory)):
        twin = bench.model
        assert isinstance(twin, Twin)
        if config.get("twin"):
            found = load(config["twin"], bench.system)
            if type(found) is not type(twin):
                raise UserError(
                    f"twin={config['twin']} holds a {type(found).__name__}, and model is {type(twin).__name__}; "
                    "choose the model that was fitted"
                )
            try:
                twin.load_state_dict(found.state_dict())
            except RuntimeError as error:
                raise UserError(
                    f"twin={config['twin']} was fitted with {found.options}, and model says {twin.options}; repeat those options"
                ) from error
            report.append({"twin": number, "file": str(config["twin"])})
            continue
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
