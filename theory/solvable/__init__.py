"""solvable."""
