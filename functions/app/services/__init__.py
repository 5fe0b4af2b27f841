"""The rules of the app domain: plain functions on plain data, one module per resource."""
