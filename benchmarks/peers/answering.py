"""How a peer answers requests; imported by its Python, so of nothing but the standard library.

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
    """Answer until the input ends. A request prepares, and returns what is then timed."""
    known = {request.__name__: request for request in requests}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answered = timed(known[request.pop("do")](**request))
        except Exception as error:
            traceback.print_exc()
            answered = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answered), file=answers, flush=True)


def timed(run):
    """Return the result of a prepared request, and the seconds that it took."""
    gc.collect()
    begin = time.perf_counter()
    value = run()
    return {"seconds": time.perf_counter() - begin, "value": value}
