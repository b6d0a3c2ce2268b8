"""Shapes of batches."""

from enumerator.lanes.batch import BatchShape

# For a few starts: of the default, the programs of a large batch are compiled and then those of a small one.
FEW = BatchShape(lanes=8)
