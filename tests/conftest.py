"""For every test: float64, no silent promotion of types, and the shapes in the types enforced at run time."""

import os
from pathlib import Path

# Before JAX is imported: the tests must pass on a machine with a GPU too, and there they compare with the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Before a test imports Ray, which looks then: it listens on loopback alone.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Before anything of the package is imported: the modules that state shapes. It has no effect on the workers, which are
# other processes.
PACKAGE = Path(__file__).parent.parent / "enumerator"
install_import_hook(
    [f"enumerator.{path.stem}" for path in PACKAGE.glob("*.py") if "from jaxtyping import" in path.read_text()],
    "beartype.beartype",
)
