"""Flexural modes of a square plate with free edges, by the Rayleigh-Ritz method in Legendre polynomials."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.linalg import eigh

Array = NDArray[np.float64]
Point = tuple[float, float]


class Plate(NamedTuple):
    """A square plate: side a (m), thickness h (m), Young's modulus E (Pa), Poisson's ratio ν, density ρ (kg/m³)."""

    side: float
    thickness: float
    young: float
    poisson: float
    density: float

    @property
    def rigidity(self) -> float:
        """D = E h³ / 12(1 − ν²), N·m."""
        return self.young * self.thickness**3 / (12 * (1 - self.poisson**2))

    @property
    def mass(self) -> float:
        """ρ h a², kg."""
        return self.density * self.thickness * self.side**2


class Modes(NamedTuple):
    """Mass-normalised modes: frequencies (Hz) and shapes at the drive and averaged over the microphone's patch (kg^-½)."""

    frequency: Array
    drive: Array
    microphone: Array


def polynomials(count: int, xi: Array, derivative: int = 0) -> Array:
    """Derivatives of the Legendre polynomials P_0 … P_(count−1), orthonormal on [−1, 1], at ξ: (count, points)."""
    identity = np.eye(count) * np.sqrt(np.arange(count) + 0.5)
    values = [legendre.legval(xi, legendre.legder(row, derivative)) for row in identity]
    return np.array(values, dtype=np.float64)


def stiffness(basis: int, poisson: float) -> Array:
    """∫∫ w_ξξ² + w_ηη² + 2ν w_ξξ w_ηη + 2(1−ν) w_ξη² over [−1, 1]² as a matrix of the basis P_i(ξ) P_j(η).

    Shape (basis², basis²). No boundary condition is imposed: free edges are the natural ones. Eigenvalues κ give
    ω a² √(ρh/D) = 4 √κ. Source: A. W. Leissa, J. Sound Vib. 31, 257 (1973).
    """
    xi, weight = legendre.leggauss(basis)
    P = [polynomials(basis, xi, order) for order in range(3)]
    S = [[(P[m] * weight) @ P[n].T for n in range(3)] for m in range(3)]  # S[m][n] = ∫ ∂ᵐP_i ∂ⁿP_j
    bending = np.kron(S[2][2], S[0][0]) + np.kron(S[0][0], S[2][2])
    coupling = poisson * (np.kron(S[2][0], S[0][2]) + np.kron(S[0][2], S[2][0]))
    twist = 2 * (1 - poisson) * np.kron(S[1][1], S[1][1])
    return np.asarray(bending + coupling + twist, dtype=np.float64)


def at_point(basis: int, side: float, point: Point) -> Array:
    """Every basis function at a point (m, from the centre): (basis²,)."""
    x, y = (polynomials(basis, np.array([2 * c / side]))[:, 0] for c in point)
    return np.asarray(np.kron(x, y), dtype=np.float64)


def over_patch(basis: int, side: float, point: Point, sigma: float) -> Array:
    """Every basis function averaged with a Gaussian weight of standard deviation σ (m) on the plate: (basis²,)."""
    xi, weight = legendre.leggauss(64)
    P = polynomials(basis, xi)
    axes = [weight * np.exp(-((side / 2 * xi - c) ** 2) / (2 * sigma**2)) for c in point]
    return np.kron(*(P @ w / w.sum() for w in axes))


def spectrum(plate: Plate, basis: int, coil: float, spring: float, drive: Point) -> tuple[Array, Array]:
    """ω² (rad²/s²), ascending, and mass-normalised shapes (basis², modes) with a coil (kg) on a spring (N/m) at `drive`."""
    point = at_point(basis, plate.side, drive)
    K = plate.rigidity * (2 / plate.side) ** 2 * stiffness(basis, plate.poisson) + spring * np.outer(point, point)
    M = plate.mass / 4 * np.eye(basis**2) + coil * np.outer(point, point)
    return eigh(K, M)


@lru_cache(maxsize=32)
def modes(
    plate: Plate, basis: int, count: int, coil: float, spring: float, drive: Point, microphone: Point, sigma: float
) -> Modes:
    """The first `count` modes that a force at `drive` excites, shapes positive there.

    Left out are the modes with a node at `drive`, which the force cannot see: the two rotations about it, and of each
    pair that the square's symmetry makes degenerate the one that the coil does not touch. Raises ValueError if the
    basis has too few others.
    """
    squared, shapes = spectrum(plate, basis, coil, spring, drive)
    at_drive = at_point(basis, plate.side, drive) @ shapes
    driven = np.flatnonzero(np.abs(at_drive) > 1e-6 * np.abs(at_drive).max())[:count]
    if len(driven) < count:
        raise ValueError(
            f"system.drive={list(drive)} excites {len(driven)} modes of the basis, and system.modes={count}; "
            "drive it off the symmetry axes, or lower system.modes"
        )
    at_drive, shapes = at_drive[driven], shapes[:, driven]
    at_microphone = over_patch(basis, plate.side, microphone, sigma) @ shapes
    sign = np.sign(at_drive)
    return Modes(np.sqrt(squared[driven]) / (2 * math.pi), sign * at_drive, sign * at_microphone)
