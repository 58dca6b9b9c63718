"""Parts of methods.py and forgetting.py."""
