"""The process of the RunEngine. It publishes documents, and does not know the store.

python take_runs.py localhost:5567 POINTS SAMPLE
"""

from __future__ import annotations

import sys
import time

from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher
from bluesky.plans import scan
from ophyd.sim import det, motor

address, points, sample = sys.argv[1:]

RE = RunEngine({})
RE.subscribe(Publisher(address))
time.sleep(1)  # 0MQ connects in the background, and drops what is published before

motor.delay = 0.3
(uid,) = RE(scan([det], motor, -2, 2, int(points)), sample=sample)
print(uid)
