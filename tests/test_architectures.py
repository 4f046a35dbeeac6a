"""Wiring: encoders and read-outs, and that every architecture is the formula it says, copies independent of each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pnn.architectures import (
    Ensemble,
    Hybrid,
    Linear,
    LinearClassifier,
    Mixer,
    Multichannel,
    Multilayer,
    Perceptron,
    Sizes,
    Skip,
)
from pnn.build import build
from pnn.config import checked
from pnn.devices import lab
from pnn.encodings import Direct, Energy, Mask, SideBySide, Windows, resample, uniform
from pnn.errors import UserError
from pnn.gradients import ideal, in_silico, physics_aware
from pnn.layers import Laboratory, out_of_range, total_penalty
from pnn.systems import CoupledOscillators, Identity, ParameterSpec, System
from pnn.systems.system import per_sample
from pnn.twins import GreyBox, nominal

TASK = Sizes(16, 5, (4, 4))


class Square(System):
    """y = (u, u²): twice as many outputs as inputs, range [-1, 1]."""

    input_range = (-1.0, 1.0)

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.input_size, self.output_size = inputs, 2 * inputs

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        return torch.cat([x, x * x], -1)


def laboratory(system=Square, **more) -> Laboratory:
    return Laboratory(system, lab, nominal, in_silico, **{"encoding": Mask, **more})


def test_resampling_takes_means_or_repeats() -> None:
    x = torch.arange(6.0)
    assert torch.equal(resample(x, 6), x)
    assert torch.equal(resample(x, 3), torch.tensor([0.5, 2.5, 4.5]))
    assert torch.equal(resample(x[:3], 6), torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0, 2.0]))
    assert resample(torch.rand(2, 3, 5), 7).shape == (2, 3, 7)
    assert resample(x, 4).mean() == pytest.approx(float(x.mean()))


def test_a_mask_multiplies_and_shifts_element_by_element() -> None:
    encoder = Mask(4, Square(4, 4), (3,), scale=0.9, offset_spread=0.5)
    x = torch.rand(3, 7, 4)
    with torch.no_grad():
        u = encoder(x)
    assert (encoder.mask == 0.9).all() and encoder.offset.abs().max() <= 0.5 and encoder.offset.std() > 0.1
    for n in range(3):
        torch.testing.assert_close(u[n], x[n] * encoder.mask[n] + encoder.offset[n])


@pytest.mark.parametrize("size", [8, 7])
def test_data_and_amplitudes_side_by_side(size: int) -> None:
    for layout in ("interleaved", "blocks"):
        encoder = SideBySide(size - size // 2, Square(size, size), (2,), layout=layout, scale=2.0, offset=0.1)
        x = torch.rand(2, 5, size - size // 2)
        u = encoder(x).detach()
        data = u[..., 0::2] if layout == "interleaved" else u[..., : size - size // 2]
        p = u[..., 1::2] if layout == "interleaved" else u[..., size - size // 2 :]
        torch.testing.assert_close(data, 2 * x + 0.1)
        torch.testing.assert_close(p, encoder.amplitudes.detach().unsqueeze(1).expand_as(p))
        assert encoder.amplitudes.min() >= 0 and encoder.amplitudes.max() <= 1


def test_windows_read_the_end_of_a_recording() -> None:
    y = torch.arange(12.0).expand(2, 12)
    assert torch.equal(Windows()(y, None), y)
    assert torch.equal(Windows(tail=3)(y, 3), torch.tensor([[9.0, 10.0, 11.0]] * 2))
    assert torch.equal(Windows(tail=4)(y, 2), torch.tensor([[8.5, 10.5]] * 2))
    assert torch.equal(Windows(tail=0.34)(y, 2), torch.tensor([[8.5, 10.5]] * 2))  # the last third
    assert torch.equal(Windows(tail=0.05)(y, 3), torch.tensor([[9.0, 10.0, 11.0]] * 2))  # a sample an output at least
    assert torch.equal(Windows()(y, 3), torch.tensor([[1.5, 5.5, 9.5]] * 2))
    assert torch.equal(Windows(normalise="max")(y, None), y / 11)
    assert torch.isfinite(Windows(normalise="max")(torch.zeros(2, 4), None)).all()
    dipping = torch.tensor([[-2.0, -4.0, 1e-5]])  # a linearised spectrum: its largest value is next to nothing
    assert torch.equal(Windows(normalise="max")(dipping, None), dipping / 4)


def test_the_energy_of_windows_obeys_parseval() -> None:
    y = torch.randn(3, 16, dtype=torch.float64)
    assert torch.equal(Energy()(y, None), y)
    energy = Energy()(y, 4)
    torch.testing.assert_close(4 * energy, y.unflatten(-1, (4, 4)).square().sum(-1))
    spectrum = torch.fft.fft(y, norm="ortho").abs().square()
    torch.testing.assert_close(4 * energy.sum(-1), spectrum.sum(-1))
    torch.testing.assert_close(Energy(tail=4)(y, 4), y[..., -4:].square())
    share = Energy(normalise="total")
    torch.testing.assert_close(share(y, 4).sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(share(-7 * y, 4), share(y, 4))
    assert torch.isfinite(share(torch.zeros(2, 4), 2)).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Windows, {"tail": 0}), (Windows, {"tail": 2.5}), (Windows, {"normalise": "sum"}), (Energy, {"normalise": "max"})],
)
def test_a_read_out_that_cannot_be_is_refused(kind: type, options: dict) -> None:
    with pytest.raises(ValueError, match="system.readout"):
        kind(**options)


@pytest.mark.parametrize(("clamp", "outside"), [("true", 0.0), ("straight_through", 1.0)])
def test_the_drive_stays_in_range_and_pays_for_leaving_it(clamp: str, outside: float) -> None:
    bench = laboratory(clamp=clamp, encoding=Direct)
    layer = bench.layer(3)
    x = torch.tensor([[0.5, -3.0, 2.0]], requires_grad=True)
    u = layer.encode(x)
    assert torch.equal(u, torch.tensor([[0.5, -1.0, 1.0]]))
    (gradient,) = torch.autograd.grad(u.sum(), x)
    assert torch.equal(gradient, torch.tensor([[1.0, outside, outside]]))
    assert float(layer.penalty.detach()) == pytest.approx((2 + 1) / 3, abs=1e-2)
    assert float(out_of_range(torch.zeros(4), -1, 1)) < 1e-6


class Knob(System):
    """y = θ x, θ in [0, 1]."""

    def __init__(self, inputs: int, outputs: int | None = None):
        super().__init__()
        self.input_size = self.output_size = inputs

    @property
    def parameters_spec(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec("knob", (self.input_size,), "1", initial=0.5, centre=0.5, low=0.0, high=1.0),)

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        return per_sample(theta[0], x) * x


@pytest.mark.parametrize(("clamp", "outside"), [("true", 0.0), ("straight_through", 1.0)])
def test_physical_parameters_stay_in_range_and_pay_for_leaving_it(clamp: str, outside: float) -> None:
    layer = Laboratory(Knob, lab, nominal, physics_aware, clamp=clamp).layer(3)
    with torch.no_grad():
        layer.knob.copy_(torch.tensor([0.5, -3.0, 2.0]))
    y = layer(torch.ones(1, 3))
    assert torch.equal(y, torch.tensor([[0.5, 0.0, 1.0]]))
    (gradient,) = torch.autograd.grad(y.sum(), layer.knob, retain_graph=True)
    assert torch.equal(gradient, torch.tensor([1.0, outside, outside]))
    assert float(layer.penalty.detach()) == pytest.approx((3 + 1) / 3, abs=2e-2)
    with pytest.raises(ValueError, match=r"knob of -3 … 2, outside \[0, 1\]"):
        layer.device.respond(torch.ones(1, 3), layer.knob)


def test_a_read_out_is_used_whatever_the_number_of_outputs() -> None:
    layer = Laboratory(Identity, lab, nominal, physics_aware, readout=Energy()).layer(3, outputs=3)
    assert torch.equal(layer(torch.tensor([[1.0, -2.0, 3.0]])), torch.tensor([[1.0, 4.0, 9.0]]))
    for tail in (2, 4):
        with pytest.raises(ValueError, match=f"tail={tail} must be from 3, the number of outputs, to 3"):
            Laboratory(Identity, lab, nominal, physics_aware, readout=Windows(tail)).layer(3, outputs=3)


class Bench:
    """A device of a laboratory's own: all that it has is `respond`."""

    def __init__(self, system: System, slot: int = 0, answer=lambda x: x):
        self.answer = answer

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        return self.answer(x)


def test_a_device_with_nothing_but_respond_is_counted_checked_and_resumed() -> None:
    bench = Laboratory(Identity, Bench, nominal, physics_aware)
    layer = bench.layer(3)
    layer(torch.rand(5, 3))
    (device,) = bench.devices
    state = device.state_dict()
    layer(torch.rand(5, 3))
    assert (device.ledger.calls, device.ledger.samples) == (2, 10)
    device.load_state_dict(state)
    assert (device.ledger.calls, device.ledger.samples) == (1, 5)
    for answer, said in (
        (lambda x: x[..., :2], r"shape \(5, 2\) .* must be \(5, 3\)"),
        (lambda x: x.numpy(), "a ndarray"),
    ):
        wrong = Laboratory(Identity, lambda system, slot, a=answer: Bench(system, slot, a), nominal, physics_aware)
        with pytest.raises(UserError, match=f"Bench.respond gave {said}"):
            wrong.layer(3)(torch.rand(5, 3))
    with pytest.raises(ValueError, match="Bench can only be measured"):
        Laboratory(Identity, Bench, nominal, ideal).layer(3)


def test_one_instrument_serves_every_layer_of_its_size() -> None:
    net = Multilayer(laboratory(Identity, reuse=True), TASK, depth=3)
    assert len({id(layer.device) for layer in net.layers}) == 1 and len({id(layer.model) for layer in net.layers}) == 1
    assert len({id(layer.device) for layer in Multilayer(laboratory(Identity), TASK, depth=3).layers}) == 3


def forward_by_hand(layer: nn.Module, x: Tensor) -> Tensor:
    u = (resample(x, layer.encoder.size) * layer.encoder.mask + layer.encoder.offset).clamp(-1, 1)
    return torch.cat([u, u * u], -1)


def test_multilayer_and_skip_are_their_formulas() -> None:
    x = torch.rand(3, 16)
    net = Multilayer(laboratory(), TASK, depth=2, scale=3.0)
    expected = 3.0 * resample(forward_by_hand(net.layers[1], forward_by_hand(net.layers[0], x)), 5)
    torch.testing.assert_close(net(x), expected)
    net = Skip(laboratory(), TASK, depth=2, scale=3.0, through=0.7, skip=0.2)
    h = 0.7 * forward_by_hand(net.layers[0], x) + 0.2 * resample(x, 32)
    torch.testing.assert_close(net(x), 3.0 * resample(forward_by_hand(net.layers[1], h), 5))


def member(net: nn.Module, index: int, lead: int = 0) -> dict[str, Tensor]:
    """The parameters of one copy."""
    return {name: p.detach().select(lead, index) for name, p in net.named_parameters()}


def alone(parameters: dict[str, Tensor], net: nn.Module) -> nn.Module:
    """A network without leading dimensions, with the parameters of one copy."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(parameters[name].reshape(p.shape))
    return net


@pytest.mark.parametrize("roll", [False, True])
@pytest.mark.parametrize("reading", ["raster", "shuffled"])
def test_an_ensemble_averages_its_members(roll: bool, reading: str) -> None:
    def build_member(bench, task, lead=()):
        return Skip(bench, task, depth=2, lead=lead)

    net = Ensemble(laboratory(encoding=SpreadMask), TASK, build_member, 3, reading, roll)
    x = torch.rand(4, 16)
    logits = torch.zeros(4, 5)
    for m in range(3):
        one = alone(member(net.body, m), build_member(laboratory(), TASK))
        seen = x if net.order is None else x[:, net.order[m]]
        own = one(seen)
        logits += own.roll(m, -1) / 3 if roll else own / 3
    torch.testing.assert_close(net(x), logits)


def SpreadMask(features: int, system: System, lead: tuple[int, ...] = ()) -> Mask:
    return Mask(features, system, lead, scale_spread=0.5, offset_spread=0.3)


@pytest.mark.parametrize("split", [False, True])
def test_channels_are_added(split: bool) -> None:
    net = Multichannel(laboratory(encoding=SpreadMask), TASK, Multilayer, 3, split)
    x = torch.rand(4, 16)
    expected = torch.zeros(4, 5)
    for c in range(3):
        seen = x[:, [min(3 * i + c, 15) for i in range(6)]] if split else x
        one = alone(member(net.body, c), Multilayer(laboratory(), Sizes(seen.shape[1], 5)))
        expected += one(seen)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("digital_output", [False, True])
def test_a_hybrid_has_digital_layers_around_the_physics(digital_output: bool) -> None:
    net = Hybrid(laboratory(), TASK, Multilayer, 2, 6, digital_output, hidden=4, centre=0.5)
    x = torch.rand(3, 16)
    parts = []
    for c in range(2):
        one = alone(member(net.body, c), Multilayer(laboratory(), Sizes(6, 4 if digital_output else 5)))
        parts.append(one(x @ net.enter.weight[c].T + net.enter.bias[c]))
    expected = net.leave(torch.cat(parts, -1)) if digital_output else parts[0] + parts[1]
    torch.testing.assert_close(net(x), expected)
    assert float(net.enter.bias.detach().mean()) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
def test_linear_layers_of_copies(lead: tuple[int, ...]) -> None:
    layer = Linear(7, 4, lead)
    x = torch.rand(*lead, 3, 5, 7)
    expected = torch.einsum("...oi,...bci->...bco", layer.weight, x) + per_sample(
        layer.bias, torch.rand(*lead, 3, 5, 4)
    )
    torch.testing.assert_close(layer(x), expected)


ARCHITECTURES = [Multilayer, Skip, Ensemble, Multichannel, Hybrid, Mixer, LinearClassifier, Perceptron]


@pytest.mark.parametrize("kind", ARCHITECTURES, ids=lambda kind: kind.__name__)
def test_seeds_run_side_by_side_and_do_not_leak(kind: type[nn.Module]) -> None:
    more = {"patch": 2} if kind is Mixer else {}
    net = kind(laboratory(encoding=SpreadMask), TASK, lead=(3,), **more)
    x = torch.rand(3, 4, 16)
    logits = net(x)
    assert logits.shape == (3, 4, 5)
    logits[0].sum().backward()
    for parameter in net.parameters():
        assert parameter.shape[0] == 3
        if parameter.grad is not None:
            assert parameter.grad[1:].abs().sum() == 0
    one = alone(member(net, 1), kind(laboratory(), TASK, **more))
    torch.testing.assert_close(one(x[1]), logits[1])


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        (Multilayer, {"depth": 0}, "architecture.depth=0"),
        (Ensemble, {"members": 0}, "architecture.members=0"),
        (Ensemble, {"reading": "back"}, "architecture.reading=back"),
        (Multichannel, {"channels": 17}, "architecture.channels=17"),
        (Hybrid, {"width": 0}, "architecture.width=0"),
        (Mixer, {"patch": 3}, "architecture.patch=3"),
        (Perceptron, {"hidden": 0}, "architecture.hidden=0"),
    ],
)
def test_what_cannot_be_wired_is_refused(kind: type[nn.Module], options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        kind(laboratory(), TASK, **options)


SYSTEMS = sorted(file.stem for file in (Path(__file__).parents[1] / "conf/system").glob("*.yaml"))
WIRINGS = sorted(file.stem for file in (Path(__file__).parents[1] / "conf/architecture").glob("*.yaml"))


@pytest.mark.parametrize("training", ["in_silico", "pat", "ideal"])
@pytest.mark.parametrize("architecture", WIRINGS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_combination_trains_on_a_batch(system: str, architecture: str, training: str) -> None:
    """System × architecture × training mode: the loss is finite and every trainable parameter gets a finite gradient."""
    small = {"mixer": ["architecture.patch=4", "architecture.width=6"], "ensemble": ["architecture.members=2"]}
    more = small.get(architecture, []) + (
        ["architecture.channels=2"] if architecture in ("multichannel", "hybrid") else []
    )
    config = checked("train", [f"system={system}", f"architecture={architecture}", f"training={training}", *more])
    experiment = build(config)
    x, target = torch.rand(3, 64), torch.tensor([0, 4, 9])
    loss = nn.functional.cross_entropy(experiment.network(x, "train"), target)
    loss = loss + total_penalty(experiment.network)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in experiment.network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("reference", ["identity", "clamped", "linear"])
def test_references_replace_the_physics_and_keep_the_rest(reference: str) -> None:
    if reference == "clamped":
        with pytest.raises(UserError, match="no range to clamp"):
            build(checked("train", ["reference=clamped"]))
        return
    network = build(checked("train", [f"reference={reference}"])).network
    layer = network.layers[0]
    if reference == "identity":
        x = torch.rand(2, 64)
        torch.testing.assert_close(layer(x, "device"), layer.encoder(x))
    else:
        assert isinstance(layer.model, CoupledOscillators) and layer.model.linear
        x = 0.1 * torch.rand(1, 64)
        f = layer(x, "model") - layer(0 * x, "model")
        torch.testing.assert_close(layer(3 * x, "model") - layer(0 * x, "model"), 3 * f, rtol=1e-4, atol=1e-5)


def test_the_linear_reference_has_a_digital_model_of_its_own() -> None:
    options = ["system=electronic_oscillator", "device=circuit", "model=grey_box", "reference=linear"]
    (bench,) = build(checked("train", options)).laboratory.benches[:1]
    assert isinstance(bench.model, GreyBox) and bench.model.system.linear and bench.device.system.linear
    with pytest.raises(UserError, match="twin=some.pt is of a device with all of its physics"):
        build(checked("train", [*options, "twin=some.pt"]))


def test_pat_through_a_mask_is_the_chain_rule_at_the_device_s_inputs() -> None:
    class Device:
        def respond(self, u: Tensor) -> Tensor:
            return torch.cat([u, 1.1 * u * u], -1)

    bench = Laboratory(Square, lambda system, slot: Device(), nominal, physics_aware, encoding=Mask)
    layer = bench.layer(3)
    x = torch.tensor([[0.1, 0.2, 0.3]])
    y = layer(x)
    torch.testing.assert_close(y[..., 3:], 1.1 * x * x)
    y[..., 3:].sum().backward()
    torch.testing.assert_close(layer.encoder.mask.grad, (2 * x * x)[0])


@pytest.mark.parametrize(
    "name", ["fig2_plate", "fig2_electronic", "fig2_shg", "hybrid_shg", "vowels_shg", "fig3_fashion_mnist"]
)
def test_every_experiment_has_a_linear_classifier_as_its_sibling(name: str) -> None:
    experiment = build(checked("train", [f"experiment={name}", "reference=linear_classifier"]))
    task = experiment.task
    assert isinstance(experiment.network, LinearClassifier) and not experiment.layers
    assert experiment.network.weight.shape == (task.classes, task.features)


def test_a_perceptron_is_a_hidden_layer_of_rectified_units() -> None:
    net = Perceptron(laboratory(), TASK, hidden=7)
    own = nn.Sequential(nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 5))
    own.load_state_dict(
        {f"{n}.{k}": v for n, m in (("0", net.hidden), ("2", net.output)) for k, v in m.state_dict().items()}
    )
    x = torch.rand(2, 16)
    torch.testing.assert_close(net(x), own(x))


@pytest.mark.parametrize("name", ["fig2_plate", "fig2_shg", "vowels_shg"])
def test_a_perceptron_is_as_large_as_the_network_it_stands_for(name: str) -> None:
    overrides = [f"experiment={name}", "reference=perceptron"]
    sibling, small = build(checked("train", overrides)), build(checked("train", [*overrides, "hidden=3"]))
    physical = build(checked("train", overrides[:1])).network
    count = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (sibling.network, physical)]
    a_unit = sibling.task.features + sibling.task.classes + 1
    assert isinstance(sibling.network, Perceptron) and not sibling.layers
    assert abs(count[0] - count[1]) <= a_unit / 2
    assert small.network.hidden.weight.shape == (3, sibling.task.features)


def test_uniform_draws_lie_on_both_sides() -> None:
    drawn = uniform((10_000,), 1.0, 0.5)
    assert 0.5 <= drawn.min() < 0.51 and 1.49 < drawn.max() <= 1.5


def test_masks_are_drawn_around_their_scale() -> None:
    mask = Mask(4, Identity(4), (100,), scale=2.0, scale_spread=0.5).mask
    assert mask.std() > 0.2 and mask.min() >= 1.5 and mask.max() <= 2.5


def test_offsets_are_drawn_too() -> None:
    assert SideBySide(4, Identity(8), (100,), offset_spread=0.5).offset.std() > 0.2


class Remembering(Bench):
    """An instrument with a state of its own."""

    calls = 0

    def respond(self, x: Tensor, *theta: Tensor) -> Tensor:
        self.calls += 1
        return super().respond(x, *theta)

    def state_dict(self) -> dict[str, int]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


def test_records_of_every_leading_copy_are_counted() -> None:
    bench = Laboratory(Identity, Remembering, nominal, physics_aware)
    bench.layer(3, lead=(2,))(torch.rand(2, 5, 3))
    assert bench.devices[0].ledger.samples == 10


def test_an_instruments_own_state_is_restored() -> None:
    bench = Laboratory(Identity, Remembering, nominal, physics_aware)
    layer = bench.layer(3)
    layer(torch.rand(5, 3))
    (device,) = bench.devices
    state = device.state_dict()
    layer(torch.rand(5, 3))
    device.load_state_dict(state)
    assert device.device.calls == 1
