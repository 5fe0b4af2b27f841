"""A package, so that its platform ends with its last test and not with the session."""
