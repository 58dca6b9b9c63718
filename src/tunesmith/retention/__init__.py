"""How much of what the base knew is kept: meters, and the share of its own weights that a limit on the loss asks for."""
