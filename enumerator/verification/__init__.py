"""A catalogue held against the mathematics, by formulas that the solvers do not use; and repaired where it follows."""
