"""All that is measured, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workloads import calls, clusters, costs, data, durations, lazy

if TYPE_CHECKING:
    from benchmarks.workload import Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        *calls.WORKLOADS,
        *durations.WORKLOADS,
        *data.WORKLOADS,
        *lazy.WORKLOADS,
        *costs.WORKLOADS,
        *clusters.WORKLOADS,
    )
}
