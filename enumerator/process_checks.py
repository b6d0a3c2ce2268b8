"""What a process must be like for this package to work in it: JAX's settings as they were, and no fork behind it."""

from __future__ import annotations

import os
from typing import Any

from enumerator.errors import InputError

# Values that settings of JAX may have. Tolerances are those of double precision, broadcasting is used throughout, and
# the starts of a campaign follow from its seed as long as the other two are as they are by default.
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "jax_enable_x64": (True,),
    "jax_numpy_rank_promotion": ("allow", "warn"),
    "jax_threefry_partitionable": (True,),
    "jax_random_seed_offset": (0,),
    **dict.fromkeys(
        ("jax_transfer_guard", "jax_transfer_guard_host_to_device", "jax_transfer_guard_device_to_host"),
        (None, "allow", "log", "log_explicit"),
    ),
}

# The processes in which libraries with threads of their own were first used, by the name of the library. A fork copies
# this, but no thread.
_first_used: dict[str, int] = {}


def check_jax() -> None:
    """Raise InputError where JAX cannot compute here as this package needs it."""
    check_not_forked("JAX")
    import jax

    for name, allowed in _ALLOWED.items():
        found = getattr(jax.config, name, allowed[0])
        if found not in allowed:
            raise InputError(
                f"the JAX setting {name} must be {allowed[0]!r} for this package, got {found!r}: "
                f"jax.config.update({name!r}, {allowed[0]!r})."
            )


def check_not_forked(library: str) -> None:
    """Raise InputError where a library was used before this process was forked: its threads are in the other one."""
    if _first_used.setdefault(library, os.getpid()) != os.getpid():
        raise InputError(
            f"this process was forked from one that uses {library}, whose threads it lacks: start workers with "
            "multiprocessing.get_context('spawn') or 'forkserver' (multiprocessing_context of a PyTorch loader)."
        )
