"""The population loss as a function of the overlaps or the weights: its value, its derivatives, what it is made of."""
