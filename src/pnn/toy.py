"""pnn-toy: the reality gap in closed form, a chain of ten power laws whose digital model is half a per cent off.

    f_p(x) = 2 x^θ,  f_m(x) = 2.01 x^θ,  y_n = f(f(…f(x_0))).

In silico the relative gap of output and gradient is 1.005^(1 + θ + … + θ^(n−1)) − 1; with physics-aware training the output
is the device's own and the gradient's gap is 1.005ⁿ − 1 (at θ = 1.1, x_0 = 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pnn.config import run_command
from pnn.modes import MODE_LABELS
from pnn.rules import Config


def main() -> None:
    """Entry point of `pnn-toy`."""
    run_command("toy", toy)


class PowerLaw:
    """A device y = gain · x^θ that can be measured and, being a simulation, differentiated."""

    def __init__(self, gain: float):
        self.gain = gain

    def respond(self, x: Any, *theta: Any) -> Any:
        import torch

        with torch.no_grad():
            return self.differentiable(x, *theta)

    def differentiable(self, x: Any, *theta: Any) -> Any:
        return self.gain * x ** theta[0]


def chain(f: Callable[..., Any], x: Any, theta: Any, times: int) -> Any:
    """x after `times` applications of f(·, θ)."""
    for _ in range(times):
        x = f(x, theta)
    return x


def output_and_slope(f: Callable[..., Any], theta: float, times: int) -> tuple[float, float]:
    """y_n and dy_n/dx_0 at x_0 = 1, in float64."""
    import torch

    x = torch.ones((), dtype=torch.float64, requires_grad=True)
    y = chain(f, x, torch.tensor(theta, dtype=torch.float64), times)
    return y.item(), float(torch.autograd.grad(y, x)[0])


def learn(f: Callable[..., Any], config: Config) -> float:
    """θ after gradient descent on (y_n − target)², from `config["exponent"]`."""
    import torch

    x = torch.ones((), dtype=torch.float64)
    theta = torch.tensor(config["exponent"], dtype=torch.float64, requires_grad=True)
    for _ in range(config["steps"]):
        loss = (chain(f, x, theta, config["times"]) - config["target"]) ** 2
        (gradient,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            theta -= config["lr"] * gradient
    return float(theta.detach())


def toy(config: Config) -> dict[str, Any]:
    """Print both tables; writes toy.json where `out` says and returns its content."""
    from pathlib import Path

    from pnn import runs
    from pnn.alignment import MODES

    if config["out"] is not None:
        runs.check_writable(Path(config["out"]).parent)
    device, model = PowerLaw(config["device_gain"]), PowerLaw(config["model_gain"])
    f = {mode: make(device, model.differentiable) for mode, make in MODES.items()}
    gaps = []
    for times in (1, 5, 10, 20):
        y, slope = output_and_slope(f["ideal"], config["exponent"], times)
        row: dict[str, Any] = {"applications": times}
        for mode in MODES:
            own_y, own_slope = output_and_slope(f[mode], config["exponent"], times)
            row[mode] = {"output_gap": own_y / y - 1, "gradient_gap": own_slope / slope - 1}
        gaps.append(row)
    learned = {mode: learn(f[mode], config) for mode in MODES}
    reached = {
        mode: output_and_slope(device.differentiable, theta, config["times"])[0] for mode, theta in learned.items()
    }
    report = {"gaps": gaps, "learned": learned, "on_the_device": reached, "target": config["target"]}
    print(render(report))
    if config["out"] is not None:
        Path(config["out"]).parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(Path(config["out"]), report)
    return report


def render(report: dict[str, Any]) -> str:
    """The two tables as text."""
    lines = [f"{'applications':<14}{'output, in silico':>20}{'gradient, in silico':>22}{'gradient, PAT':>16}"]
    for row in report["gaps"]:
        silico, pat = row["in_silico"], row["pat"]
        cells = (silico["output_gap"], silico["gradient_gap"], pat["gradient_gap"])
        text = "".join(f"{100 * cell:>{width}.2f} %" for cell, width in zip(cells, (18, 20, 14), strict=True))
        lines.append(f"{row['applications']:<14}{text}")
    lines += ["", f"{'training':<24}{'θ':>10}{'on the device':>18}   (target {report['target']:g})"]
    for mode, theta in report["learned"].items():
        lines.append(f"{MODE_LABELS[mode]:<24}{theta:>10.5f}{report['on_the_device'][mode]:>18.5g}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
