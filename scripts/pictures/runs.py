"""The runs that more than one picture shows, and trajectories as arrays."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import enumerator as en
from enumerator.replay import replay


class Path(NamedTuple):
    """A start from its initial overlaps to where it retired, n accepted steps: Q (n, K, K), R (n, K, M)."""

    flow_time: NDArray[np.float64]
    loss: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    Q: NDArray[np.float64]
    R: NDArray[np.float64]


@lru_cache
def enumeration(students: int, teachers: int, starts: int) -> en.Enumeration:
    """What the first starts find, by gradient flow from w ~ N(0, I_d) with d = 1000."""
    return en.enumerate_minima(en.Landscape(students, teachers), starts=starts)


def path(campaign: en.Campaign, index: int) -> Path:
    """The trajectory of a start."""
    table = replay(campaign, index)
    K, M = campaign.landscape.students, campaign.landscape.teachers
    Q, R = (np.array(table[name].to_pylist()) for name in "QR")
    times, losses, norms = (np.array(table[name]) for name in ("flow_time", "loss", "gradient_norm"))
    return Path(times, losses, norms, Q.reshape(-1, K, K), R.reshape(-1, K, M))
