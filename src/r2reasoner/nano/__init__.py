"""The nano pool: nine tiny language models that run anywhere, their tasks and training."""
