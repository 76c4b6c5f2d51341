"""Training data and training of the two policies."""
