"""The load script in small: pages while a campaign writes, and all starts as one stream into two readers."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "load"


@pytest.mark.slow
def test_a_small_load_is_served_without_error():
    # How fast is for a quiet machine to say: here pages may take as long as the client waits.
    asked = ["--rate", "8", "--seconds", "5", "--starts", "200000", "--p99", "30"]
    done = subprocess.run([sys.executable, str(SCRIPT), *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("No error; every answer of one moment")
    assert "40 pages at 8/s" in last and "0 errors" in last
    assert "pyarrow: 200,000 starts" in last and "polars: 200,000 starts" in last
