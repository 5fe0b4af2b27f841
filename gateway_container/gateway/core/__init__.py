"""The policy of the gateway without I/O: authorise, limit, reserve, choose, retry, meter."""
