"""A sharpness: the loss's mean rise at a fifth of the norm of what the method trains."""

from analysis.measures import Instrument, Measure

WIDE = Instrument(
    name="wide",
    file="wide.json",
    take="dora_plugin.rise:take",
    settings={"radius": 0.2, "samples": 2, "examples": 20},
)

WIDE_RISE = Measure(name="wide/rise", family="sharpness", unit="nats", space="adapter", instrument=WIDE)
