"""The cluster table: the only package that knows it.

A cluster is an item with its sealed kubeconfig, its nodes, its reservations and the claim on its name beside it. A
deployment lies in its project's partition, with its specification (plan and model) apart: lists do not need it.
"""
