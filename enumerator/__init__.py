"""An atlas of the local minima of two-layer neural networks.

    import enumerator as en
    found = en.enumerate_minima(en.Landscape(students=17, teachers=17), starts=1000)
    atlas = en.Catalogue("atlas")
    atlas.minima(students=17)

Importing this package turns on 64-bit numbers in JAX: nothing that it computes is right without. JAX itself, as the
rest, loads when it is first needed: reading a catalogue does not.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from enumerator.errors import CatalogueError, EnumeratorError, InputError, SolverError
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances

if TYPE_CHECKING:
    from enumerator import plots, statistics
    from enumerator.catalogue.catalogue import Catalogue
    from enumerator.catalogue.minimum import Minimum
    from enumerator.client import connect
    from enumerator.enumeration import Enumeration, enumerate_minima
    from enumerator.identification.identify import identify
    from enumerator.loss.overlaps import Overlaps
    from enumerator.loss.population import population_loss

# JAX reads this when it loads, and its own setting after that.
os.environ["JAX_ENABLE_X64"] = "1"
if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_enable_x64", True)

__all__ = [
    "Campaign",
    "Catalogue",
    "CatalogueError",
    "Dynamics",
    "Enumeration",
    "EnumeratorError",
    "InitialLaw",
    "InputError",
    "Landscape",
    "Minimum",
    "Overlaps",
    "SolverError",
    "Tolerances",
    "connect",
    "enumerate_minima",
    "identify",
    "plots",
    "population_loss",
    "statistics",
]


# Where the names above are found that are not here yet.
_MODULES = {
    "Catalogue": "catalogue.catalogue",
    "Enumeration": "enumeration",
    "Minimum": "catalogue.minimum",
    "Overlaps": "loss.overlaps",
    "connect": "client",
    "enumerate_minima": "enumeration",
    "identify": "identification.identify",
    "population_loss": "loss.population",
}


def __getattr__(name: str) -> Any:
    """Load what is first used."""
    if name == "__version__":
        return import_module("enumerator.catalogue.records").installed_version("enumerator")
    if name in ("statistics", "plots"):
        return import_module(f"enumerator.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"enumerator.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """What users call, whether it has been loaded or not."""
    return sorted([*__all__, "__version__", "__doc__"])
