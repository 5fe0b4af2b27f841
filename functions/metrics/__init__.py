"""Metering rows into ClickHouse, usage out of it, and predictions held against measurements."""
