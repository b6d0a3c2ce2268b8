"""How students move: vector fields, their solvers, and the dynamics on offer (`steppers`)."""
