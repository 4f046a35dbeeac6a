"""Numbers as text for tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pnn.reporting.statistics import Estimate

DASH = "—"
#: Settings that a table names before it says "and n more".
NAMED = 4
PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}


def percent(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{100 * value:.{digits}f} %"


def accuracy(value: Estimate | None) -> str:
    """Mean ± 95 % interval in per cent; one run has no interval."""
    if value is None:
        return DASH
    return f"{100 * value.mean:.2f} %" if value.half is None else f"{100 * value.mean:.2f} ± {100 * value.half:.2f} %"


def signed(fraction: float) -> str:
    """Percentage points with a sign."""
    return f"{100 * fraction:+.2f}".replace("-", "−")


def points(value: Estimate) -> str:
    """A difference in percentage points with a sign and its 95 % interval."""
    return signed(value.mean) + ("" if value.half is None else f" ± {100 * value.half:.2f}")


def duration(seconds: float) -> str:
    """Seconds as 0.7 s, 35 s, 12 min, 3.4 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def metric(value: float | None, unit: str) -> str:
    """Three digits with an SI prefix: 4.08 ms, 12.3 µJ; — for None."""
    if value is None:
        return DASH
    exponent = 0 if value == 0 else min(9, max(-15, 3 * math.floor(math.log10(abs(value) * 1.0005) / 3)))
    scaled = value / 10.0**exponent
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(scaled) * 1.0005)))
    return f"{scaled:,.{digits}f} {PREFIXES[exponent]}{unit}".rstrip()


def count(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def short(commit: str) -> str:
    """The first digits of a commit; `-dirty` stays."""
    name, dirty, _ = commit.partition("-dirty")
    return name[:8] + dirty


def range_of(values: Sequence[float]) -> str:
    """One number where all agree, else the mean."""
    return count(values[0]) if len(set(values)) == 1 else f"≈ {count(sum(values) / len(values))}"


def settings_text(settings: dict[str, Any]) -> str:
    """key=value of the first few settings."""
    items = [f"{key}={'null' if value is None else value}" for key, value in settings.items()]
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
