"""Fine-tuning runs, measured generalization, landscapes, spectra, curvature and their comparison."""

from theory.package import check_adapters_are_ours

check_adapters_are_ours()
