"""Guardrails without I/O: what a text may not contain, found in whole texts and in texts that come in pieces."""
