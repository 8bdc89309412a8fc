"""Absorption scans of two samples: aligned, normalised, merged, and written back.

    pip install "daskbroker[plot]" bluesky ophyd
    python xas.py            # eight scans of 300 points
    python xas.py --short    # four of 100

The results stay in a folder, ``xas-data``. A second call goes on from there.
"""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from beamline import Beamline

import daskbroker

SAMPLES = ("iron", "hematite")
FOIL = 7112.0  # eV, where the edge of the reference foil belongs
BEFORE, AFTER = (-140.0, -30.0), (100.0, 520.0)  # from the edge; where the lines are fitted


def edge(energy: np.ndarray, mu: np.ndarray) -> float:
    """Return the energy of the steepest rise, by a parabola through the derivative's maximum."""
    even = np.arange(energy[0], energy[-1], 0.25)
    width = np.exp(-((np.arange(-12, 13) * 0.25 / 1.2) ** 2) / 2)
    smooth = np.convolve(np.interp(even, energy, mu), width / width.sum(), "same")
    slope = np.gradient(smooth)
    slope[:50] = slope[-50:] = 0  # where the smoothing runs out of points
    top = int(slope.argmax())
    a, b, _ = np.polyfit(even[top - 4 : top + 5] - even[top], slope[top - 4 : top + 5], 2)
    return float(even[top] - b / (2 * a))


def normalized(header: daskbroker.Header) -> pd.DataFrame:
    """Return one scan: energies aligned by the foil, mu(E), and normalised mu(E)."""
    fields = ["energy", "i0", "it", "ir"]
    frame = header.table(fields=fields).compute(scheduler="synchronous")
    frame = frame.sort_values("energy").reset_index(drop=True)
    mu, foil = np.log(frame["i0"] / frame["it"]), np.log(frame["it"] / frame["ir"])
    shift = FOIL - edge(frame["energy"].to_numpy(), foil.to_numpy())
    energy = frame["energy"].to_numpy() + shift
    e0 = edge(energy, mu.to_numpy())
    lines = []
    for (first, last), degree in ((BEFORE, 1), (AFTER, 2)):
        fitted = (energy > e0 + first) & (energy < e0 + last)
        lines.append(np.polynomial.Polynomial.fit(energy[fitted], mu[fitted], degree))
    pre, post = lines
    step = float(post(e0) - pre(e0))
    norm = (mu - pre(energy)) / step
    flat = norm + np.where(energy > e0, 1 - (post(energy) - pre(energy)) / step, 0)
    return pd.DataFrame(
        {
            "energy": energy, "mu": mu, "pre_edge": pre(energy), "post_edge": post(energy),
            "norm": norm, "flat": flat, "e0": e0, "shift": shift, "step": step,
        }
    )  # fmt: skip


def axis(step: float) -> np.ndarray:
    """Return limits of bins: wide before the edge, narrow at it, then even in wave number."""
    past = 3.81 * np.arange(3.25, 12, 0.1) ** 2  # eV, of wave numbers in 1/Å
    return FOIL + np.concatenate([np.arange(-150, -20, 10), np.arange(-20, 40, step), past])


def merged(table: pd.DataFrame, step: float) -> pd.DataFrame:
    """Return scans on one axis of energies: mean, spread and number of readings per bin."""
    bins = table.groupby(pd.cut(table["energy"], axis(step), labels=False))
    return bins.agg(
        energy=("energy", "mean"), mu=("flat", "mean"), spread=("flat", "std"),
        readings=("flat", "count"),
    ).reset_index(drop=True)  # fmt: skip


def write_back(db: daskbroker.DataBroker, runs: daskbroker.Results, step: float) -> str:
    """Store one run merged from several, unless it exists, and return its uid."""
    uids = sorted(header.uid for header in runs)
    uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"merged {step} {uids}"))
    if uid not in db:
        table = merged(runs.table(fields=["energy", "flat"]).compute(), step)
        origin = {"runs": uids, "name": "merged", "parameters": {"step": step}}
        for name, doc in daskbroker.table_to_stream(table, runs[0], uid=uid, provenance=origin):
            db.insert(name, doc)
    return uid


def plot(scans: pd.DataFrame, means: dict[str, daskbroker.Header], path: Path) -> None:
    """Plot one scan with its lines, all normalised scans, the edge, and the merged spectra."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (lines, near, whole) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    first = scans[scans["run"] == scans["run"].iloc[0]]
    for name in ("mu", "pre_edge", "post_edge"):
        lines.plot(first["energy"], first[name], lw=1, label=name)
    lines.set(title="a scan", ylabel="ln(i0 / it)")
    for (sample, _), scan in scans.groupby(["start:sample.name", "run"]):
        color = f"C{list(means).index(sample)}"
        near.plot(scan["energy"], scan["flat"], ".", ms=3, color=color)
    near.set(xlim=(FOIL - 20, FOIL + 50), title="all scans, normalised")
    for place, (sample, header) in enumerate(means.items()):
        mean = header.dataset(index="energy").load()
        for axes in (near, whole):
            axes.plot(mean["energy"], mean["mu"], lw=1, color=f"C{place}", label=sample)
        error = mean["spread"] / np.sqrt(mean["readings"])
        whole.fill_between(
            mean["energy"], mean["mu"] - error, mean["mu"] + error, color=f"C{place}", alpha=0.3
        )
    whole.set(title="merged")
    for axes in (lines, near, whole):
        axes.set_xlabel("energy (eV)")
        axes.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="few and coarse scans")
    parser.add_argument("--folder", type=Path, default=Path("xas-data"))
    given = parser.parse_args()
    step, scans = (2.0, 2) if given.short else (0.5, 4)

    db = daskbroker.connect(given.folder / "raw")
    derived = daskbroker.connect(given.folder / "derived")
    if not db(element="Fe"):
        beamline = Beamline(db.insert)
        for _ in range(scans):
            for sample in SAMPLES:
                beamline.scan(sample, step)

    print(daskbroker.reprocess(db(element="Fe"), normalized, into=derived, name="normalized"))
    one_by_one = derived(**{"derived_from.name": "normalized"})
    table = one_by_one.table(fields=[".*", "start:sample.name"]).compute()
    of_scans = table.groupby(["start:sample.name", "run"])[["e0", "shift", "step"]].first()
    print(of_scans.groupby("start:sample.name").agg(["mean", "std"]).round(3).to_string())

    means = {}
    for sample in SAMPLES:
        uid = write_back(derived, one_by_one(**{"sample.name": sample}), step=step)
        means[sample] = derived[uid]
        scans = len(means[sample].start["derived_from"]["runs"])
        print(f"{sample} is merged of {scans} scans: {len(means[sample].table())} bins")
    derived(**{"derived_from.name": "merged"}).export(given.folder / "merged", "csv")
    plot(table, means, given.folder / "spectra.png")
    print("in", given.folder, "are", *sorted(path.name for path in given.folder.iterdir()))


if __name__ == "__main__":
    main()
