"""What takes the measure."""

from analysis.geometry import mean_rise
from analysis.measures import adapted_weights, training_batch


def take(run, settings):
    """Measure one finished run."""
    batch = training_batch(run, examples=settings["examples"])
    where = {"space": "adapter", "names": adapted_weights(run.model, run.record)}
    size = {"relative_radius": settings["radius"], "samples": settings["samples"]}
    rise = mean_rise(run.model, batch, seed=0, **where, **size)
    return {"rise": rise.value, "rise_error": rise.standard_error}
