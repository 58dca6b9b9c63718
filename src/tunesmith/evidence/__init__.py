"""What a report tells beside the verdict: one examination a file, each from the finished run's measurements."""
