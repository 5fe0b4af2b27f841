"""Reading a Hugging Face config into size facts."""
