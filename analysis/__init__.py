"""Fine-tuning runs, measured generalization, landscapes, spectra, curvature and their comparison."""
