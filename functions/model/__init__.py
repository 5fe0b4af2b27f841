"""The model registry: weights by their architecture facts, read from a Hugging Face ``config.json``."""
