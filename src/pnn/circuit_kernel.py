"""The electronic oscillator's time loop as native code: RK4 of many records at once, and its exact discrete adjoint.

State per record: coil current i and the capacitor's voltage w, driven by u held over each sample; v = w + κ u is the
transistor's voltage (κ ≠ 0 only with a stray capacitance). With h the substep absorbed into a = h/L and b = h/C,

    di = a (u − R i − v),   dw = b (i − I(v)),   output v_L = u − R i − v at the end of the sample,
    I(v) = p [sp²(m(v − V)) − sp²(m(v − V − n v))] − g [sp(−r v + s) − sp(s)],   sp = softplus:

the transistor (EKV) and its body diode. One row of the table holds COLUMNS for one set of constants. Records lie side
by side in memory (sample, record), so the inner loops over records become vector instructions; the integer bits of a
float32 exponential keep that loop free of library calls. Compiled at the first call and cached on disk.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload
from torch import Tensor

#: Contents of one row of the table; the order in which the kernel unpacks it.
COLUMNS = ("a", "b", "R", "kappa", "p", "m", "V", "n", "g", "r", "s", "sp_s")

#: Records that the adjoint takes together; a multiple of every vector length.
WIDTH = 64

FAST: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}, "nogil": True, "cache": True}
INLINE = {**FAST, "forceinline": True}
LOG2_E, LN2_HIGH, LN2_LOW = 1 / math.log(2), 0.693359375, math.log(2) - 0.693359375


def like(c: float, x: Any) -> Any:
    """c in the precision of x: a bare literal would promote the whole loop to float64."""
    return type(x)(c)


def decay(z: Any) -> Any:
    """e^z for z ≤ 0."""
    return math.exp(z)


def log1p(t: Any) -> Any:
    """log(1 + t) for 0 ≤ t ≤ 1."""
    return math.log1p(t)


@overload(like, inline="always")
def _like(c: float, x: Any) -> Any:
    return _like32 if x is types.float32 else _like64


@overload(decay, inline="always")
def _decay(z: Any) -> Any:
    return _decay32 if z is types.float32 else _decay64


@overload(log1p, inline="always")
def _log1p(t: Any) -> Any:
    return _log1p32 if t is types.float32 else _log1p64


def _like32(c: float, x: Any) -> Any:
    return np.float32(c)


def _like64(c: float, x: Any) -> Any:
    return np.float64(c)


def _decay64(z: Any) -> Any:
    return math.exp(z)


def _log1p64(t: Any) -> Any:
    return math.log1p(t)


def _decay32(z: Any) -> Any:
    """2^k e^r, |r| ≤ ln2/2: Taylor series to r⁶, and k into the exponent's bits."""
    f = np.float32
    z = max(z, f(-87.0))
    k = np.int32(z * f(LOG2_E) - f(0.5))  # rounds to nearest, for z ≤ 0
    r = z - f(k) * f(LN2_HIGH) - f(k) * f(LN2_LOW)
    e = f(1 / 720) * r + f(1 / 120)
    e = e * r + f(1 / 24)
    e = e * r + f(1 / 6)
    e = e * r + f(0.5)
    e = (e * r + f(1.0)) * r + f(1.0)
    return e * np.int32((k + 127) << 23).view(np.float32)


def _log1p32(t: Any) -> Any:
    """2 artanh(q), q = t/(2 + t) ≤ 1/3: Taylor series to q¹⁵."""
    f = np.float32
    q = t / (f(2.0) + t)
    x = q * q
    e = f(2 / 15) * x + f(2 / 13)
    e = e * x + f(2 / 11)
    e = e * x + f(2 / 9)
    e = e * x + f(2 / 7)
    e = e * x + f(2 / 5)
    e = e * x + f(2 / 3)
    return (e * x + f(2.0)) * q


@njit(**INLINE)
def softplus(y: Any) -> Any:
    """sp(y) = log(1 + e^y) and its derivative, for any y."""
    zero, one = like(0.0, y), like(1.0, y)
    t = decay(-abs(y))
    slope = one / (one + t)
    return max(y, zero) + log1p(t), slope if y > zero else t * slope


@njit(**INLINE)
def rates(i: Any, w: Any, u: Any, row: Any) -> Any:
    """(di, dw) of one substep, and dI/dv."""
    a, b, R, kappa, p, m, V, n, g, r, s, sp_s = row
    v = w + kappa * u
    forward, up = softplus(m * (v - V))
    reverse, down = softplus(m * (v - V - n * v))
    drain = p * (forward * forward - reverse * reverse)
    slope = (p + p) * (m * forward * up - (m - m * n) * reverse * down)
    if g > like(0.0, g):  # the same for all records: the compiler takes it out of their loop
        body, on = softplus(s - r * v)
        drain -= g * (body - sp_s)
        slope += g * r * on
    return a * (u - R * i - v), b * (i - drain), slope


@njit(**INLINE)
def step(i: Any, w: Any, u: Any, row: Any) -> Any:
    """One classical Runge-Kutta step."""
    half, third, sixth = like(1 / 2, i), like(1 / 3, i), like(1 / 6, i)
    i1, w1, _ = rates(i, w, u, row)
    i2, w2, _ = rates(i + half * i1, w + half * w1, u, row)
    i3, w3, _ = rates(i + half * i2, w + half * w2, u, row)
    i4, w4, _ = rates(i + i3, w + w3, u, row)
    return i + sixth * (i1 + i4) + third * (i2 + i3), w + sixth * (w1 + w4) + third * (w2 + w3)


@njit(**INLINE)
def pullback(gi: Any, gw: Any, slope: Any, row: Any) -> Any:
    """(∂(di, dw)/∂(i, w))ᵀ (gi, gw)."""
    a, b, R = row[0], row[1], row[2]
    return b * gw - a * R * gi, -a * gi - b * slope * gw


@njit(**INLINE)
def step_back(i: Any, w: Any, u: Any, gi: Any, gw: Any, row: Any) -> Any:
    """The adjoint of `step`: cotangents of i and w before it, and of u."""
    half, third, sixth = like(1 / 2, i), like(1 / 3, i), like(1 / 6, i)
    i1, w1, s1 = rates(i, w, u, row)
    i2, w2, s2 = rates(i + half * i1, w + half * w1, u, row)
    i3, w3, s3 = rates(i + half * i2, w + half * w2, u, row)
    _, _, s4 = rates(i + i3, w + w3, u, row)
    e4 = sixth * gi
    i4, w4 = pullback(e4, sixth * gw, s4, row)
    e3 = third * gi + i4
    i3, w3 = pullback(e3, third * gw + w4, s3, row)
    e2 = third * gi + half * i3
    i2, w2 = pullback(e2, third * gw + half * w3, s2, row)
    e1 = sixth * gi + half * i2
    i1, w1 = pullback(e1, sixth * gw + half * w2, s1, row)
    w_sum = w1 + w2 + w3 + w4
    direct = row[0] * (e1 + e2 + e3 + e4) + row[3] * w_sum  # u enters di, and v = w + κu as w does
    return gi + (i1 + i2 + i3 + i4), gw + w_sum, direct


@njit(**INLINE)
def unpack(table: Any, s: int) -> Any:
    t = table[s]
    return t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11]


@njit(**FAST)
def forward_loop(u: Any, table: Any, substeps: Any, keep: bool, states: Any, out: Any) -> None:
    """u, out (S, N, B); from rest; `keep` writes the states at the beginning of each sample, (S, N, 2, B)."""
    S, N, B = u.shape
    for s in range(S):
        row = unpack(table, s)
        R, kappa = row[2], row[3]
        state = np.zeros((2, B), u.dtype)
        i, w = state[0], state[1]
        for k in range(N):
            drive, v_L = u[s, k], out[s, k]
            if keep:
                states[s, k] = state
            for _ in range(substeps[s]):
                for r in range(B):
                    i[r], w[r] = step(i[r], w[r], drive[r], row)
            for r in range(B):
                v_L[r] = drive[r] - R * i[r] - (w[r] + kappa * drive[r])


@njit(**FAST)
def adjoint_loop(gradient: Any, u: Any, table: Any, substeps: Any, states: Any, out: Any) -> None:
    """gradient (S, N, B) of v_L → out (S, N, B) of u; the substeps within a sample are recomputed, not stored.

    Works on blocks of WIDTH records in one buffer at constant distances, so that no check for overlap is needed.
    """
    S, N, B = u.shape
    buffer = np.zeros(6 * WIDTH, u.dtype)  # gi, gw, gu, u, i, w
    inner = np.zeros((max(substeps), 2 * WIDTH), u.dtype)
    for s in range(S):
        row, n = unpack(table, s), substeps[s]
        R, kappa = row[2], row[3]
        for first in range(0, B, WIDTH):
            width = min(WIDTH, B - first)
            buffer[:] = 0
            for k in range(N - 1, -1, -1):
                for r in range(width):
                    g = gradient[s, k, first + r]
                    buffer[r] -= R * g
                    buffer[WIDTH + r] -= g
                    buffer[2 * WIDTH + r] = g - kappa * g
                    buffer[3 * WIDTH + r] = u[s, k, first + r]
                for r in range(width):
                    buffer[4 * WIDTH + r] = states[s, k, 0, first + r]
                    buffer[5 * WIDTH + r] = states[s, k, 1, first + r]
                for j in range(n - 1):
                    inner[j] = buffer[4 * WIDTH :]
                    for r in range(width):
                        i, w = step(buffer[4 * WIDTH + r], buffer[5 * WIDTH + r], buffer[3 * WIDTH + r], row)
                        buffer[4 * WIDTH + r], buffer[5 * WIDTH + r] = i, w
                for j in range(n - 1, -1, -1):
                    if j < n - 1:
                        buffer[4 * WIDTH :] = inner[j]
                    for r in range(width):
                        i, w, u_now = buffer[4 * WIDTH + r], buffer[5 * WIDTH + r], buffer[3 * WIDTH + r]
                        gi, gw, direct = step_back(i, w, u_now, buffer[r], buffer[WIDTH + r], row)
                        buffer[r], buffer[WIDTH + r] = gi, gw
                        buffer[2 * WIDTH + r] += direct
                for r in range(width):
                    out[s, k, first + r] = buffer[2 * WIDTH + r]


def record(u: Tensor, table: Tensor, substeps: list[int], keep: bool) -> tuple[Tensor, Tensor]:
    """u (S, B, N), V, and table (S, columns) → v_L (S, B, N), V, and the states (S, N, 2, B) if they are kept."""
    S, B, N = u.shape
    drive = u.detach().mT.contiguous()  # (S, N, B)
    states = u.new_empty((S, N, 2, B) if keep else (0, 0, 0, 0))
    v_L = torch.empty_like(drive)
    forward_loop(*arrays(drive, table), np.asarray(substeps), keep, *arrays(states, v_L))
    return v_L.mT.contiguous(), states


def adjoint(gradient: Tensor, u: Tensor, table: Tensor, substeps: list[int], states: Tensor) -> Tensor:
    """The gradient with respect to u (S, B, N) of `record`'s v_L."""
    drive, g_v = u.detach().mT.contiguous(), gradient.mT.contiguous()  # (S, N, B)
    g_u = torch.empty_like(drive)
    adjoint_loop(*arrays(g_v, drive, table), np.asarray(substeps), *arrays(states, g_u))
    return g_u.mT.contiguous()


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().numpy() for t in tensors]
