"""Information-theoretic generalization bounds for low-rank and sparse adapters. Imports no torch."""
