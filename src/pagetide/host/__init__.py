"""The host's side: balloon devices for many guests, discarding, and the ledger of what became of each report."""
