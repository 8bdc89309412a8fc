"""Ingest recorded documents, and write runs as Parquet files, which most tools read."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas as pd

import daskbroker
from daskbroker.exporting.runs import export
from daskbroker.testing import make_run
from daskbroker.work.ingest import ingest

with tempfile.TemporaryDirectory() as temporary, daskbroker.temp() as db:
    folder = Path(temporary)
    for number in range(3):
        lines = [json.dumps(pair) for pair in make_run(events=10, plan_name="scan", scan_id=number)]
        (folder / f"run-{number}.jsonl").write_text("\n".join(lines))
    (folder / "broken.jsonl").write_text('["start", {"uid": "half')

    report = ingest(db, [folder])
    print(report)
    for refusal in report.refusals:
        print("refused:", Path(refusal.where).name)
    files = list(export(db(scan_id={"$gte": 1}), folder / "parquet", "parquet"))
    print(f"{len(files)} files")
    print(pd.read_parquet(files[0]).head(3))
