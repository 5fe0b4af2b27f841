"""Versions on whose inner workings we rely."""

EMULATOR_VERSION = "1.5.33"  # ministack: see emulator/engine.py
