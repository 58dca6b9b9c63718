"""What a base says of the test rows before any training: by the labels' names, in words, or by a head of its own."""
