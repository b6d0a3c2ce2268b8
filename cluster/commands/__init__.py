"""The commands of `enumerator`: each takes its arguments apart and prints; the work is done elsewhere."""
