"""Which: base model, rate, settings, chosen by measurement."""
