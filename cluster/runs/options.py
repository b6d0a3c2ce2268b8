"""How campaigns are run: what is no part of them, and changes nothing of what is found."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.runs.machine import DEVICES, available_gpus, choose_device
from cluster.runs.progress import DISPLAYS
from enumerator.errors import InputError
from enumerator.validation import MOST_STARTS, check_choice, check_count


@dataclass(frozen=True)
class RunOptions:
    """Workers, device, Ray cluster, time limit in seconds, display. Raises InputError for what cannot be.

    `workers` defaults to one per core, or per GPU. `device` auto becomes cpu or gpu here. On the cluster at `address`
    workers come and go with its nodes. `progress` is one of `cluster.runs.progress.DISPLAYS`.
    """

    workers: int | None = None
    device: str = "auto"
    address: str | None = None
    time_limit: float | None = None
    progress: str = "auto"

    def __post_init__(self) -> None:
        check_choice("progress", self.progress, DISPLAYS)
        if self.workers is not None:
            check_count("workers", self.workers, most=MOST_STARTS)
        object.__setattr__(self, "device", self._device())

    def _device(self) -> str:
        """`cpu` or `gpu`; whether the nodes of a cluster have GPUs is not seen from here."""
        check_choice("device", self.device, DEVICES)
        if self.address is not None:
            return "cpu" if self.device == "auto" else self.device
        device = choose_device(self.device)
        if device == "gpu" and self.workers is not None and self.workers > available_gpus():
            raise InputError(f"`workers` must be at most one per GPU, {available_gpus()} here, got {self.workers}.")
        return device

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers follows that of the nodes of a cluster."""
        return self.workers is None and self.address is not None

    @property
    def says(self) -> bool:
        """Whether lines for people may stand on stderr."""
        return self.progress not in ("json", "none")
