"""Parts of forgetting.py."""
