"""The process of one contender: ``python -m benchmarks.stage WORKLOAD CONTENDER PARAMS IN OUT``.

It reads a word from the file descriptor IN and answers with a line of JSON on OUT: ``warm``, ``run``, ``check``. The
contender's own words go to its terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from benchmarks.workload import Measured
from benchmarks.workloads import WORKLOADS


def main(workload_name: str, contender_name: str, params: str, fd_in: str, fd_out: str) -> None:
    for fd in (fd_in, fd_out):
        os.set_inheritable(int(fd), False)
    workload, settled = WORKLOADS[workload_name], SimpleNamespace(**json.loads(params))
    contender = workload.contender(contender_name)
    job = replace(workload.job(settled), chunksize=contender.chunksize, params=settled)
    func = job.plain if contender.plain and job.plain else job.func
    warm_up = job.warm_up or [(func, job.items[: workload.warm_up])]
    with open(int(fd_in)) as orders, open(int(fd_out), "w", buffering=1) as reports, contender.how(job) as run:

        def report(**facts: Any) -> None:
            print(json.dumps(facts), file=reports, flush=True)

        report(ready=True)
        measured = Measured(None, 0.0)
        for order in orders:
            match order.strip():
                case "warm":
                    if workload.warm_up:
                        for known, items in warm_up:
                            run(known, items)
                    report(warm=True)
                case "run":
                    measured = timed(run, func, job.items)
                    report(seconds=measured.seconds, figures=dict(measured.figures))
                case "check":
                    report(right=bool(workload.check(settled, measured.answer)))
                    measured = Measured(None, 0.0)


def timed(run: Any, func: Any, items: Any) -> Measured:
    began = time.perf_counter()
    answer = run(func, items)
    seconds = time.perf_counter() - began
    return answer if isinstance(answer, Measured) else Measured(answer, seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
