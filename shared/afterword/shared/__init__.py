"""What both sides of Afterword stand on: contracts, errors, settings, the ledger."""
