"""The search space: which students there are, and how they are drawn, all as arrays."""

# With what probabilities the paper removes a layer from a random student: one of these.
REMOVAL_PROBABILITIES = (0.3, 0.4, 0.5, 0.6, 0.7)
