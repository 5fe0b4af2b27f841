"""The rules of clusters and deployments: plain functions on plain data."""
