"""DoRA (arXiv:2402.09353): the direction of W0 + B A, the length of each row trained apart. No torch here."""

from theory.assumptions import assume
from theory.counting import log2_binomial
from theory.descriptions import LINKS, SUPPORT, Description, gauge_fixed_numbers
from theory.methods import Family, Method


def magnitudes(*, out_features, in_features, rank):
    """One number a row of W."""
    return out_features


def _bits(record):
    rows, columns, rank = record["out_features"], record["in_features"], record["rank"]
    if not 0 < rank <= min(rows, columns):
        return None
    numbers = gauge_fixed_numbers(out_features=rows, in_features=columns, rank=rank) + rows
    return numbers * record["bits"] + log2_binomial(columns, rank) + record["side_information_bits"]


GAUGE_AND_LENGTHS = Description(
    name="gauge-and-lengths",
    bits=_bits,
    why="dW is of full rank, but a function of W0, of B A, which has rank r, and of the lengths of the rows",
    assumptions=(assume("lengths-as-are", "B A is quantised after its gauge is fixed, the lengths as they are"),),
)

DORA = Method(
    key="dora",
    name="DoRA",
    arxiv="2402.09353",
    trains="both",
    selector="gaussian",
    beside=magnitudes,
    family=Family(name="dora", hooks="dora_plugin.hooks:HOOKS", descriptions=(LINKS, SUPPORT, GAUGE_AND_LENGTHS)),
)
