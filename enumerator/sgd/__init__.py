"""One-pass SGD in finite dimensions: its steps, the minimum that it fluctuates about, and the bias of its step."""
