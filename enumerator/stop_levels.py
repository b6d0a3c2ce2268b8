"""Where a lane is watched, for what a solver that stops early would have reported."""

# Where others stop: gradient norms over the root mean square norm of a teacher (the plain gradient norm for
# orthonormal teachers), and flow times.
GRADIENT_NORMS = (1e-3, 1e-4, 1e-6)
FLOW_TIMES = (1e2, 1e3, 1e4, 1e5)
STOPS = len(GRADIENT_NORMS) + len(FLOW_TIMES)
