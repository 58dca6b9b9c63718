"""What a result must beat: cheap alternatives, one file each, that a task names."""
