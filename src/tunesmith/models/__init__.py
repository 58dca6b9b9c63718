"""A pretrained model and what is known of its inside."""
