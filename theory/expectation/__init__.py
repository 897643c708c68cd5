"""expectation."""
