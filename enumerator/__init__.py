"""An atlas of the local minima of two-layer neural networks.

    import enumerator as en
    found = en.enumerate_minima(en.Landscape(students=17, teachers=17), starts=1000)
    atlas = en.Catalogue("atlas")
    atlas.minima(students=17)

Importing this package turns on 64-bit numbers in JAX: nothing that it computes is right without.
"""

import importlib
from typing import TYPE_CHECKING, Any

import jax

jax.config.update("jax_enable_x64", True)

# After the setting above, which must come before any array.
from enumerator.errors import CatalogueError, EnumeratorError, InputError, SolverError  # noqa: E402
from enumerator.loss import population_loss  # noqa: E402
from enumerator.overlaps import Overlaps  # noqa: E402
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances  # noqa: E402

if TYPE_CHECKING:
    from enumerator import plots, statistics
    from enumerator.catalogue import Catalogue
    from enumerator.client import connect
    from enumerator.enumeration import Enumeration, enumerate_minima

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
    "Overlaps",
    "SolverError",
    "Tolerances",
    "connect",
    "enumerate_minima",
    "plots",
    "population_loss",
    "statistics",
]


def __getattr__(name: str) -> Any:
    """Catalogue and tables load when first used: the numerical core works without DuckDB and Delta Lake."""
    if name == "Catalogue":
        from enumerator.catalogue import Catalogue

        return Catalogue
    if name == "connect":
        from enumerator.client import connect

        return connect
    if name in ("Enumeration", "enumerate_minima"):
        from enumerator import enumeration

        return getattr(enumeration, name)
    if name in ("statistics", "plots"):
        return importlib.import_module(f"enumerator.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
