"""Users, projects, members, keys, endpoints, runs, and what gateways ask of the control plane."""
