"""The loop in which a peer answers requests; run by its Python, so with the standard library only.

Each line of standard input is a request ``{"do": name, ...}``, each line of standard output its
answer ``{"seconds": ..., "value": ...}``, or ``{"error": ...}``; one process answers all, so no
import is ever timed.
"""

import gc
import json
import os
import sys
import time
import traceback


def recorded(file):
    """Yield the documents of a file that ``Bench.recorded`` wrote."""
    with open(file) as lines:
        for line in lines:
            yield json.loads(line)


def answer(*requests):
    """Answer requests until the input ends.

    A request is a function that prepares the work and returns a function, which is timed.
    """
    known = {request.__name__: request for request in requests}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that what a library prints is not read as an answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answered = timed(known[request.pop("do")](**request))
        except Exception as error:
            traceback.print_exc()
            answered = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answered), file=answers, flush=True)


def timed(run):
    """Run a prepared request, and return its result and the seconds that it took."""
    gc.collect()
    begin = time.perf_counter()
    value = run()
    return {"seconds": time.perf_counter() - begin, "value": value}
