"""What a label column holds: one class, a set of labels, numbers."""
