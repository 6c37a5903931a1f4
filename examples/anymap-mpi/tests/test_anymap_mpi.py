"""Each test is a job of its own, as MPI ends with the first rank that dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# For Open MPI: more ranks than CPUs, and all of that as root, too.
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
}
LAUNCHERS = {
    "the other ranks": ["mpiexec", "-n", "3", sys.executable, "-m", "mpi4py.futures"],
    "spawned ranks": ["mpiexec", "-n", "1", sys.executable],
}


def run(launcher: str, folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    # Without a guard: the ranks do not run the program.
    file = folder / "program.py"
    file.write_text(f"import os, anymap\nfrom anymap import pmap\n{program}\n")
    command = [*LAUNCHERS[launcher], str(file)]
    return subprocess.run(
        command, env=ENVIRONMENT, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_maps_run_on_ranks_that_are_kept(launcher: str, tmp_path: Path) -> None:
    program = """
first, second = (set(pmap(lambda _: os.getpid(), range(20), backend="mpi", workers=2, chunksize=1)) for _ in range(2))
print(len(first | second), os.getpid() in first | second)
print(pmap(lambda x: x * x, range(5), backend="mpi", workers=2))
"""
    ran = run(launcher, tmp_path, program)
    assert ran.stdout.splitlines() == ["2 False", "[0, 1, 4, 9, 16]"], ran


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_that_dies_ends_the_job(launcher: str, tmp_path: Path) -> None:
    program = """
try:
    pmap(os._exit, [3], backend="mpi", workers=2)
finally:
    print("the caller lives", flush=True)
"""
    ran = run(launcher, tmp_path, program)
    assert ran.returncode
    assert "the caller lives" not in ran.stdout


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_it_passes_the_exam(launcher: str, tmp_path: Path) -> None:
    program = """
from anymap.testing import examine
print(examine("mpi", patience=120, own_process=False))
"""
    ran = run(launcher, tmp_path, program)
    assert " 0 broken" in ran.stdout, ran.stdout + ran.stderr
