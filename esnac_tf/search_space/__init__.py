"""The search space: which students there are, and how they are drawn, all as arrays."""
