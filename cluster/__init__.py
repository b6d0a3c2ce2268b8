"""Running campaigns on the cores and GPUs of one machine or many, and the command line. The only package with Ray."""

import os

# Ray takes this to mean a machine of its own: it listens on loopback alone, where by default anybody on the network
# could reach its workers. It looks when it is imported, which every module of this package may do. A process inside a
# cluster is told so by RAY_ADDRESS; who starts one otherwise sets the variable to 1.
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

# The matrices of a stationary point are small: threads of linear algebra wait for each other more than they work, on a
# busy machine five times longer. NumPy looks when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
