"""What may be wrong with rows, found before anything trains on them."""
