"""The app table: the only package that knows it."""
