"""The `foundry` command: a client of the REST API, and of foundry_sim where no platform is needed."""
