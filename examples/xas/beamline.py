"""A simulated X-ray absorption beamline at the iron K edge, made of ophyd devices.

A foil of iron stands behind the sample, between the second ionisation chamber and a third. The
monochromator's calibration drifts from scan to scan, and its readback differs slightly from the
setpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bluesky import RunEngine
from bluesky.plans import list_scan
from ophyd.sim import SynAxis, SynSignal

EDGE = 7112.0  # eV
SHIFT = {"iron": 0.0, "hematite": 11.0}  # of the edge: that of iron(III) is higher


def energies(step: float) -> np.ndarray:
    """Return energies: wide steps before the edge, narrow at it, then even in wave number."""
    before = np.arange(EDGE - 150, EDGE - 20, 10)
    at = np.arange(EDGE - 20, EDGE + 40, step)
    momenta = np.arange(np.sqrt(40 / 3.81), 12, 0.1 * step)  # 1/Å
    return np.concatenate([before, at, EDGE + 3.81 * momenta**2])


def absorption(energy: np.ndarray, sample: str) -> np.ndarray:
    """Return an edge of height 1 with a white line and the oscillations of one shell."""
    past = energy - EDGE - SHIFT[sample]
    momentum = np.sqrt(np.clip(past, 0, None) / 3.81)
    shell, white = {"iron": (2.48, 0.1), "hematite": (1.95, 0.6)}[sample]
    waves = 0.15 * np.sin(2 * momentum * shell) * (1 - np.exp(-np.clip(past, 0, None) / 25))
    return (
        np.arctan(past / 1.5) / np.pi
        + 0.5
        + white * np.exp(-(((past - 6) / 4) ** 2))
        + waves * np.exp(-0.02 * momentum**2)
    )


class Beamline:
    """A RunEngine and its devices; documents go to ``insert``."""

    def __init__(self, insert: Callable[[str, Any], Any], seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._sample, self._drift = "iron", 0.0
        self.energy = SynAxis(
            name="energy", readback_func=lambda sent: sent + self._rng.normal(0, 0.02), egu="eV"
        )
        self.chambers = [
            SynSignal(name=name, func=getattr(self, f"_{name}")) for name in ("i0", "it", "ir")
        ]
        self._engine = RunEngine({})
        self._engine.subscribe(insert)

    def _depth(self, sample: str, step: float, background: float) -> float:
        """Return absorption lengths at the true energy, which differs from the readback."""
        true = self.energy.position + self._drift
        return background * (7000 / true) ** 3 + step * float(absorption(np.array(true), sample))

    def _i0(self) -> float:
        self._flux = 1e6 * self._rng.normal(1, 0.02)
        return self._noisy(self._flux)

    def _it(self) -> float:
        return self._noisy(self._flux * np.exp(-self._depth(self._sample, 1.1, 0.6)))

    def _ir(self) -> float:
        behind = self._flux * np.exp(-self._depth(self._sample, 1.1, 0.6))
        return self._noisy(behind * np.exp(-self._depth("iron", 0.8, 0.3)))

    def _noisy(self, counts: float) -> float:
        return float(counts + self._rng.normal(0, np.sqrt(counts)))

    def scan(self, sample: str, step: float) -> None:
        """Take one energy scan."""
        self._sample, self._drift = sample, self._rng.normal(0, 1.0)
        plan = list_scan(self.chambers, self.energy, list(map(float, energies(step))))
        self._engine(plan, sample={"name": sample}, element="Fe", edge="K")
