"""Compiled programs that are kept between runs: used again, never obeyed when they are damaged."""

import os
import subprocess
import sys
import zlib

from cluster.runs.machine import worker_environment

# As a worker does it, with programs that compile in no time.
PROGRAM = """
import os
from pathlib import Path
import jax
from cluster.runs.machine import dropping_damaged_programs
with dropping_damaged_programs(Path(os.environ["JAX_COMPILATION_CACHE_DIR"])):
    print([float(jax.jit(lambda x, k=k: (x + k) ** k)(2.0)) for k in range(8)])
"""


def test_damaged_programs_are_dropped_and_made_anew(tmp_path):
    environment = {**os.environ, **worker_environment("cpu"), "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}

    def solve():
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    first, _ = solve()
    kept = sorted(tmp_path.glob("*-cache"))
    assert len(kept) > 5
    for number, file in enumerate(kept):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content if number % 2 else content[: len(content) // 2])
    for _ in range(2):
        assert solve() == (first, "")
    for file in tmp_path.glob("*-cache"):
        zlib.decompress(file.read_bytes())
    assert len(list(tmp_path.glob("*-cache"))) >= len(kept)
