"""What every Foundry function shares: settings, errors, identity, tables, events, runs, money, clock."""
