"""Every figure of the notebooks and the report: one module per topic, all in one style."""
