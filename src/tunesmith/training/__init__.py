"""HOW it learns: one loop for every task and every method."""
