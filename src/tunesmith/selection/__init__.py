"""Which base model, method and settings: chosen by measuring on the user's own rows."""
