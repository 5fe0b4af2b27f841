"""Clusters under management and the deployments on them."""
