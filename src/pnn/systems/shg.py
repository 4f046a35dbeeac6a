"""Broadband second-harmonic generation (SHG) of a femtosecond pulse whose spectrum carries the data."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from pnn.systems.system import Constant, System, per_sample

FS, FS2 = 1e-3, 1e-6  # fs in ps, fs² in ps²: inside, time is in ps, f in THz, z in mm
#: Resolutions of the shaper beyond its edge that are still computed; an erf has fallen to 1e-5 there.
MARGIN = 4.5
#: Drive about which `linear` takes the derivative: every bin half open.
MID_GREY = 0.5


class SHG(System):
    """∂A₁/∂z = iκA₂A₁* + ½iGVD₁ω²A₁,  ∂A₂/∂z = iκA₁² + i(GVM·Ω + ½GVD₂Ω²)A₂,  y_m = ∫_bin m |A₂(Ω, L)|² df.

    x: openings of the shaper's bins (..., bins) in [0, 1]; y: powers of the spectrometer's bins (..., output_bins), in
    units of the brightest bin of the nominal pulse with all bins open by `reference_drive`. `inputs` and `outputs` are not
    used: the sizes are the instrument's, and an encoder and a read-out outside fit the data to them.

    A₁(f, 0) = A₀(f) e^{½iGDDω²} Σ_j u_j M_j(f), A₀ = exp(−2 ln2 (f/`bandwidth`)²): M_j is bin j of the `window` (THz), blurred by
    a Gaussian of σ = `smoothing` bins. A₁ is in units of the peak of the all-on transform-limited pulse, whose gain
    ΓL = κL·1 is `gain_length`. Frequencies (THz) count from the carrier and from its double. The spectrometer covers
    `output_window` (THz). GDD, GVD in fs², fs²/mm; GVM in fs/mm; `length` L in mm; κ in 1/mm.

    A device solves this by `device_z_steps` Strang steps h on `device_grid` frequencies, each line's growth averaged over its
    walk-off within a step, sinc(Δk h/2): the undepleted limit is then exact for any h, and what is left is the depletion's
    error (4 steps: 1e-3 of y for random drives, 2.5e-3 with all bins open; without that factor 1e-2). So does the digital
    model, on its own grid, unless it is `undepleted`: A₂ = iκL sinc(ΔkL/2) F[a²], Δk = GVM·Ω + ½GVD₂Ω² − ¼GVD₁Ω², with a(t)
    at mid-crystal (what GVD₁ adds off the middle of each line's pairs is left out: 3e-4 of y at 75 fs²/mm).
    `linear` keeps the first order in x about x = ½ of the undepleted map (an unshaped pump is no linear limit:
    y ∝ x⁴), y(½) + ∂y/∂x (x − ½): the linear reference. Source: R. W. Boyd, Nonlinear Optics, ch. 2; Nature 601, 549.

    Constants: the physical ones above, a gain per shaper bin and a gain per spectrometer bin, nominally 1.
    Raises ValueError for sizes, steps, windows, length or gain that are not positive, and for a grid that is not even.
    """

    input_range = (0.0, 1.0)
    full_scale = 5.0
    gdd: Tensor
    length: Tensor
    kappa: Tensor
    gvm: Tensor
    gvd: Tensor
    gvd_harmonic: Tensor
    shaper_gain: Tensor
    spectrometer_gain: Tensor
    omega: Tensor
    omega_harmonic: Tensor
    shaper: Tensor
    spectrometer: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bins: int = 100,
        output_bins: int = 50,
        window: float = 9.0,
        output_window: float = 9.4,
        bandwidth: float = 5.5,
        smoothing: float = 0.7,
        gdd: float = 20_000.0,
        length: float = 0.5,
        gain_length: float = 0.6,
        gvm: float = 190.0,
        gvd: float = 75.0,
        gvd_harmonic: float = 190.0,
        reference_drive: float = 0.7,
        undepleted: bool = True,
        grid: int = 512,
        z_steps: int = 4,
        device_grid: int = 512,
        device_z_steps: int = 4,
        linear: bool = False,
    ):
        super().__init__()
        positive = {"window": window, "output_window": output_window, "bandwidth": bandwidth, "smoothing": smoothing}
        for name, value in (
            positive | {"length": length, "gain_length": gain_length, "reference_drive": reference_drive}
        ).items():
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"system.{name}={value} must be > 0")
        counts = {"bins": bins, "output_bins": output_bins, "z_steps": z_steps, "device_z_steps": device_z_steps}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"system.{name}={count} must be >= 1")
        for name, points in (("grid", grid), ("device_grid", device_grid)):
            if points < 2 * bins or points % 2:
                raise ValueError(
                    f"system.{name}={points} must be even and >= 2 x bins = {2 * bins}; use 512 for 100 bins"
                )
        self.input_size, self.output_size = bins, output_bins
        self.window, self.output_window, self.bandwidth, self.smoothing = window, output_window, bandwidth, smoothing
        self.undepleted, self.linear = undepleted, linear
        self.z_steps, self.device_grid, self.device_z_steps = z_steps, device_grid, device_z_steps
        nominal = {
            "gdd": gdd,
            "length": length,
            "kappa": gain_length / length,
            "gvm": gvm,
            "gvd": gvd,
            "gvd_harmonic": gvd_harmonic,
            "shaper_gain": 1.0,
            "spectrometer_gain": 1.0,
        }
        for name, value in nominal.items():
            self.register_buffer(name, torch.full((1,), float(value)))
        self._set_grid(grid)
        with torch.no_grad():
            a = self._envelope(torch.full((bins,), reference_drive))
            self.reference = float((power(self._harmonic(a, a)) @ self.spectrometer).max())

    @property
    def constants(self) -> dict[str, Constant]:
        names = ("gdd", "length", "kappa", "gvm", "gvd", "gvd_harmonic")
        vectors = {
            "shaper_gain": Constant((self.input_size,)),
            "spectrometer_gain": Constant((self.output_size,)),
        }
        return {name: Constant((1,)) for name in names} | vectors

    def converged(self) -> SHG:
        twin = copy.deepcopy(self)
        twin.undepleted, twin.z_steps = False, self.device_z_steps
        twin._set_grid(self.device_grid)
        return twin

    def linearised(self) -> SHG:
        twin = copy.deepcopy(self)
        twin.linear = True
        return twin

    def _set_grid(self, grid: int) -> None:
        """Frequencies and response matrices: the drive's band on the first half of a grid that its square just fills.

        Index 0 is the lowest frequency of the band, not the carrier: the coupled waves are the same from any carrier, and
        zero-padding to the whole grid is then a transform's own argument.
        """
        self.grid, half = grid, grid // 2
        width = self.window / self.input_size
        edge = self.window / 2 + MARGIN * self.smoothing * width
        df = 4 * edge / grid
        k = torch.arange(grid, dtype=torch.float64)
        f = df * (
            torch.where(k < 1.5 * half, k, k - grid) - (half - 1) / 2
        )  # waves above and below the band: a quarter each
        band, harmonic = f[:half], df * (k - (half - 1))

        bins = torch.linspace(-self.window / 2, self.window / 2, self.input_size + 1, dtype=torch.float64)
        steps = torch.special.ndtr((band - bins[:, None]) / (self.smoothing * width))
        shaper = (steps[:-1] - steps[1:]) * torch.exp(-2 * math.log(2) * (band / self.bandwidth) ** 2)  # (bins, half)

        side = self.output_window / 2
        self.lines = slice(int((harmonic < -side - df / 2).sum()), int((harmonic < side + df / 2).sum()))
        edges = torch.linspace(-side, side, self.output_size + 1, dtype=torch.float64)
        cells = (edges - harmonic[self.lines, None] + df / 2).clamp(0, df) / df**2  # of each cell below each edge
        geometry = {
            "omega": 2 * math.pi * f,
            "omega_harmonic": 2 * math.pi * harmonic,
            "shaper": shaper / shaper.sum(),  # A(f) df: all bins open and in phase add up to a(0) = 1
            "spectrometer": cells.diff(dim=-1),  # (lines, output_bins), 1/THz
        }
        for name, value in geometry.items():
            self.register_buffer(name, value.to(self.kappa), persistent=False)

    def forward(self, x: Tensor, *theta: Tensor) -> Tensor:
        """Bin powers of the second harmonic behind the crystal; there are no parameters but the drive."""
        () = theta
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.kappa.dtype)
            if self.linear:
                spectrum = self._linear_power(x)
            elif self.undepleted:
                a = self._envelope(x)
                spectrum = power(self._harmonic(a, a))
            else:
                _, b = self.waves(x)
                lines = torch.fft.fft(b, norm="forward")[..., self.lines]
                spectrum = power(lines * per_sample(self._walk_off(self.length / self.z_steps), x))
            return per_sample(self.spectrometer_gain, x) * (spectrum @ self.spectrometer) / self.reference

    def _fundamental(self, x: Tensor, depth: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """A₁(f) df of the drive x, dispersed to the depth z: (..., bins) → (..., grid/2)."""
        phase = 0.5 * FS2 * (self.gdd + self.gvd * depth) * self.omega[: self.grid // 2] ** 2
        carrier = torch.polar(torch.ones_like(phase) * scale, phase)
        return ((per_sample(self.shaper_gain, x) * x) @ self.shaper) * per_sample(carrier, x)

    def _envelope(self, x: Tensor) -> Tensor:
        """a(t) at mid-crystal, (..., grid)."""
        return torch.fft.ifft(self._fundamental(x, self.length / 2), n=self.grid, norm="forward")

    def _harmonic(self, a: Tensor, b: Tensor) -> Tensor:
        """κL sinc(ΔkL/2) F[a b] df on the spectrometer's lines; the phase of a line does not matter to its power."""
        growth = self.kappa * self.length * self._walk_off(self.length)
        return torch.fft.fft(a * b, norm="forward")[..., self.lines] * per_sample(growth, a)

    def _walk_off(self, z: Tensor) -> Tensor:
        """sinc(Δk z/2) of the spectrometer's lines: what grows within z, its phase running on meanwhile."""
        omega = self.omega_harmonic[self.lines]
        mismatch = FS * self.gvm * omega + FS2 * (0.5 * self.gvd_harmonic - 0.25 * self.gvd) * omega**2
        return torch.sinc(mismatch * z / (2 * math.pi))

    def _linear_power(self, x: Tensor) -> Tensor:
        """|B₀|² + 2 Re B₀*δB, δB = 2 F[a₀ δa]: the exact derivative, so no matrix that could be out of date is kept."""
        grey, change = self._envelope(torch.full_like(x, MID_GREY)), self._envelope(x - MID_GREY)
        B = self._harmonic(grey, grey)
        return power(B) + 4 * (B.conj() * self._harmonic(grey, change)).real

    def waves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both waves against time behind the crystal, (..., grid): linear half-steps around nonlinear steps (Strang).

        Inside, amplitudes are in units of 1/κh (h = L/z_steps) and A₂ is turned by −90°, so that a nonlinear step is ȧ = −b a*,
        ḃ = a² over unit time. The last half-step is left out: it is only a phase of each line.
        """
        h = self.length / self.z_steps
        walk = FS * self.gvm * self.omega_harmonic + 0.5 * FS2 * self.gvd_harmonic * self.omega_harmonic**2
        spread = 0.5 * FS2 * self.gvd * self.omega**2
        D1, D2 = (per_sample(torch.polar(torch.ones_like(k), k * h), x) for k in (spread, walk))
        a = torch.fft.ifft(self._fundamental(x, h / 2, self.kappa * h), n=self.grid, norm="forward")
        b = torch.zeros_like(a)
        for step in range(self.z_steps):
            if step:
                a, b = torch.fft.ifft(torch.fft.fft(a) * D1), torch.fft.ifft(torch.fft.fft(b) * D2)
            a, b = mix(a, b)
        unit = per_sample(1 / (self.kappa * h), x)
        return a * unit, b * unit

    def operations(self) -> int:
        """Real products: the shaper's and spectrometer's matrices, 2 N log₂N per transform, 4 per complex product."""
        if self.linear:
            return self.input_size * self.output_size
        transforms, products = (2, 1) if self.undepleted else (4 * self.z_steps - 2, 6 * self.z_steps)
        matrices = self.shaper.numel() + self.spectrometer.numel()
        return matrices + round(2 * transforms * self.grid * math.log2(self.grid)) + 4 * products * self.grid


def mix(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """ȧ = −b a*, ḃ = a² over unit time by the explicit midpoint rule (order 2); |a|² + |b|² is the invariant."""
    middle_a = torch.addcmul(a, b, a.conj(), value=-0.5)
    middle_b = torch.addcmul(b, a, a, value=0.5)
    return torch.addcmul(a, middle_b, middle_a.conj(), value=-1), torch.addcmul(b, middle_a, middle_a)


def power(spectrum: Tensor) -> Tensor:
    """|A|², real."""
    return spectrum.real.square() + spectrum.imag.square()
