"""Hostile values for every argument of every public function of theory: refused by name, or a right value.

The functions, their arguments and the types that strangers get come from the signatures. What numbers an argument
accepts is said here once more, by the argument's name and apart from the code, so that a check that is dropped there is
missed here. ``CALLS`` holds one valid call of each function.
"""

import importlib
import inspect
import math
import pkgutil
import warnings
from fractions import Fraction

import mpmath
import numpy as np
import pytest

import theory
from theory import bounds
from theory.bounds import Bound, Network, correction, log2_binomial
from theory.certificates import (
    disagreement_bound,
    excess_loss_bound,
    fold_bound,
    occam_bound,
    pac_bayes_kl_bound,
    subsampled_bound,
)
from theory.kl import binary_kl, kl_upper
from theory.layers import for_model
from theory.networks import Phi
from theory.networks.errata import ExactNetwork, recursed

LAYERS, RNG = [(4, 8)], np.random.default_rng(0)
RISK = occam_bound(0.1, bits=8, num_examples=100, delta=0.1)
SAMPLE = {"num_examples": 100}
RECORD = bounds.plan(LAYERS, method="lora", rank=2)[0] | {"norm_update": 0.5, "norm_base": 2.0, "norm_merged": 2.2}
EYE = np.eye(4).tolist()
NET = Network(base_norms=[1.0, 2.0])
MASKED = {"losses": np.zeros((3, 2, 2)), "masks": np.zeros((3, 2), bool), "rng": RNG}

CALLS = {
    "certificates.chains.fold_bound": {
        "risks": [0.1, 0.2],
        "bits": 4,
        "fold_sizes": [9, 9],
        "delta": 0.1,
        "population_size": 40,
    },
    "certificates.chains.recursive_bound": {
        "errors": np.zeros((2, 4)),
        "bits": [1],
        "fold_sizes": [4],
        "delta": 0.1,
        "gamma": 0.5,
        "population_size": 9,
    },
    "certificates.coding.adaptive_bits": {"counts": [3, 1]},
    "certificates.excess.empirical_bernstein": {
        "values": [0.0, 1.0, 0.5],
        "complexity": 1.0,
        "delta": 0.1,
        "value_range": 1.0,
        "of": "excess",
    },
    "certificates.excess.excess_loss_bound": {
        "losses": [0, 1, 0],
        "base_losses": [1, 1, 0],
        "bits": 8,
        "delta": 0.1,
        "base": "kl",
    },
    "certificates.occam.choice_bits": {"sizes": [2, 3]},
    "certificates.occam.disagreement_bound": {
        "surrogate_bound": RISK,
        "disagreement": 0.1,
        "num_unlabelled": 50,
        "delta": 0.01,
    },
    "certificates.occam.kraft_sum": {"lengths": [1, 2]},
    "certificates.occam.occam_bound": {
        "empirical_risk": 0.1,
        "bits": 8,
        "num_examples": 100,
        "delta": 0.1,
        "loss_range": 1.0,
    },
    "certificates.occam.spare_bits": {"target_risk": 0.5, "empirical_risk": 0.1, "num_examples": 100, "delta": 0.1},
    "certificates.occam.subsampled_bound": {
        "sampled_risk": 0.1,
        "bits": 8,
        "num_examples": 100,
        "num_sampled": 50,
        "delta": 0.1,
        "form": "kl",
        "loss_range": 1.0,
    },
    "certificates.pac_bayes.gaussian_divergence": {"shift": [0.1], "posterior_scale": 0.5, "prior_scale": 1.0},
    "certificates.pac_bayes.gibbs_risk_upper": {"sampled_risk": 0.1, "num_draws": 50, "delta": 0.1},
    "certificates.pac_bayes.pac_bayes_kl_bound": {
        "gibbs_risk": 0.1,
        "divergence": 3.0,
        "num_examples": 100,
        "delta": 0.1,
    },
    "certificates.quantize.fit_levels": {
        "values": [0.1, 0.4],
        "num_levels": 3,
        "quantizer": "uniform",
        "iterations": 2,
    },
    "certificates.quantize.fix_gauge": {"left": [[1.0], [2.0]], "right": [[2.0, 4.0]]},
    "certificates.quantize.nearest": {"values": [0.1], "levels": [0.0, 1.0]},
    "certificates.quantize.uniform_levels": {"num_levels": 3, "step_code": 5},
    "certificates.smoothing.cross_entropy_bound": {
        "probability": [0.5, 0.9],
        "bits": 8,
        "num_classes": 3,
        "delta": 0.1,
        "alphas": (0.1, 0.2),
    },
    "certificates.smoothing.smoothed_cross_entropy": {"probability": [0.5], "alpha": 0.1, "num_classes": 3},
    "certificates.smoothing.smoothed_range": {"alpha": 0.1, "num_classes": 3},
    "counting.log2_binomial": {"total": 9, "chosen": 3},
    "counting.log_binomial": {"total": 9, "chosen": 3},
    "counting.log_rising": {"counts": [3, 1]},
    "counting.upwards": {"value": [0.1]},
    "assumptions.assume": {"code": "fuzz", "sentence": "a sentence"},
    "assumptions.explain": {"code": "iid"},
    "descriptions.gauge_fixed_numbers": {"out_features": 4, "in_features": 8, "rank": 2},
    "draws.draw_normal": {"key": "a", "std": 1.0},
    "expectation.description.description_bits": {"record": RECORD},
    "expectation.description.descriptions_of": {"kind": "factors"},
    "expectation.description.plan": {
        "layers": LAYERS,
        "method": "c3la",
        "rank": 2,
        "links": 2,
        "bits": 16,
        "head_numbers": 3,
        "seed": 0,
    },
    "expectation.evaluate.evaluate": {
        "layers": LAYERS,
        "method": "lora",
        **SAMPLE,
        "rank": 2,
        "bits": 16,
        "links": 2,
        "sigma": 0.5,
        "loss_range": 1.0,
        "head_numbers": 0,
        "num_choices": 2,
        "loss_change": 0.1,
        "network": Network(base_norms=[1.0]),
        "update_norms": 0.1,
    },
    "expectation.evaluate.from_update": {"records": [RECORD], **SAMPLE, "sigma": 0.5},
    "expectation.evaluate.update_bounds": {
        "records": [RECORD],
        **SAMPLE,
        "sigma": 0.5,
        "loss_range": 1.0,
        "num_choices": 2,
        "loss_change": 0.1,
        "network": Network(base_norms=[2.0]),
        "update_norms": 0.6,
        "input_norms": {"merged_norms": [2.0]},
        "empirical_risk": 0.1,
        "delta": 0.1,
    },
    "expectation.forms.certificate": {"bits": 8, "empirical_risk": 0.1, **SAMPLE, "delta": 0.1, "loss_range": 1.0},
    "expectation.forms.direct": {
        "bits": 8,
        **SAMPLE,
        "sigma": 0.5,
        "loss_range": 1.0,
        "name": "a",
        "assumptions": ("iid",),
    },
    "expectation.forms.excess": {
        "bits": 8,
        "loss_change": 0.1,
        **SAMPLE,
        "sigma": 0.5,
        "loss_range": 1.0,
        "name": "a",
        "measured": ("b",),
        "assumptions": ("iid",),
    },
    "expectation.forms.information": {"nats": 2.0, **SAMPLE, "sigma": 0.5, "loss_range": 1.0, "measured": ("a",)},
    "expectation.forms.loss_change_from_log": {"log_deviation": 0.0, "loss_lipschitz": 1.0},
    "expectation.forms.perturbation": {
        "phi": Phi(log_update=0.0, log_base=0.0),
        "sigma": 0.5,
        "loss_range": 1.0,
        "measured": ("a",),
    },
    "expectation.noisy.adapter_input_norm": {"inputs": EYE, "columns": [0, 1]},
    "expectation.table1.description_log": {"bits": 8, **SAMPLE, "sigma": 0.5},
    "expectation.table1.method_numbers": {"layers": LAYERS, "method": "lora", "rank": 2, "links": 2},
    "expectation.table1.table1": {
        "layers": LAYERS,
        "method": "lora",
        **SAMPLE,
        "rank": 2,
        "bits": 16,
        "sigma": 0.5,
        "links": 2,
        "phi": Phi(log_update=0.0, log_base=0.0),
        "loss_range": 1.0,
    },
    "information.cmi.draw_masks": {"runs": 2, "rows": 3, "rng": RNG},
    "information.cmi.estimate": {
        **MASKED,
        "quantity": "ld-mi",
        "levels": 2,
        "pooled": True,
        "correction": "none",
        "resamples": 20,
        "confidence": 0.9,
    },
    "information.cmi.estimate_all": {
        **MASKED,
        "levels": 2,
        "quantities": ["ld-mi"],
        "pooled": True,
        "correction": "none",
    },
    "information.inequalities.cmi": {"information": 0.5, **SAMPLE},
    "information.inequalities.e_cmi": {"train_risk": 0.1, "informations": [0.1]},
    "information.inequalities.fast_rate": {"train_risk": 0.1, "informations": [0.1], "source": "pair"},
    "information.inequalities.individual_sample": {"informations": [0.1], "sigma": 0.5},
    "information.inequalities.interpolating": {"informations": [0.1]},
    "information.inequalities.ld_mi": {
        "informations": [0.1],
        "form": "magnitude",
        "magnitudes": [0.5, 1.0],
        "weights": [0.5, 0.5],
    },
    "information.inequalities.single_loss": {"informations": [0.1]},
    "information.inequalities.xu_raginsky": {"information": 0.5, **SAMPLE, "sigma": 0.5},
    "information.plug_in.individual_sample_estimate": {
        "hypotheses": [0, 1],
        "examples": [[0], [1]],
        "sigma": 0.5,
        "correction": "none",
    },
    "information.plug_in.plug_in": {"counts": [[2, 0], [0, 2]], "correction": "none"},
    "information.variational.chi_square_gap": {
        "information": 0.5,
        "variance": 1.0,
        "dimension": 2,
        "noncentrality": 0.1,
    },
    "information.variational.dual_gap": {
        "information": 0.5,
        "cumulant": lambda t: t * t / 2,
        "variance": 1.0,
        "upper": 9.0,
    },
    "kl.binary_kl": {"q": 0.1, "p": 0.2},
    "kl.kl_lower": {"q": 0.1, "budget": 0.2},
    "certificates.heldout.betting_bound": {"losses": [0.0, 1.0, 0.5], "delta": 0.1, "bits": 1, "population_size": 9},
    "certificates.heldout.cluster_bound": {"losses": [0.0, 1.0, 0.5], "clusters": [1, 1, 2], "delta": 0.1, "bits": 1},
    "certificates.heldout.exact_tail_bound": {
        "errors": 1,
        "num_examples": 9,
        "delta": 0.1,
        "bits": 1,
        "population_size": 40,
    },
    "certificates.heldout.hoeffding_bound": {"losses": [0.0, 1.0, 0.5], "delta": 0.1, "bits": 1, "population_size": 9},
    "certificates.heldout.improvement_bound": {
        "losses": [0.0, 1.0, 0.5],
        "base_losses": [1.0, 1.0, 0.5],
        "delta": 0.1,
        "bits": 1,
        "population_size": 9,
    },
    "kl.kl_upper": {"q": 0.1, "budget": 0.2},
    "layers.for_model": {"key": "vit-tiny", "target_modules": ["q_proj"]},
    "layers.from_list": {"shapes": LAYERS},
    "layers.is_target": {"name": "a.q", "target_modules": ["q"]},
    "methods.get_method": {"key": "lora"},
    "networks.errata.random_network": {"depth": 2, "seed": 0},
    "networks.lipschitz.attention": {
        "radius": 1.0,
        "score_norm": 0.5,
        "value_norm": 1.0,
        "length": 4,
        "heads": 2,
        "output_norm": 1.0,
        "over": "tokens",
        "mask": "any",
    },
    "networks.lipschitz.gated_mlp": {
        "radius": 1.0,
        "gate_norm": 1.0,
        "up_norm": 1.0,
        "down_norm": 1.0,
        "gate_row_norm": 0.5,
        "up_row_norm": 0.5,
        "activation": "silu",
    },
    "networks.lipschitz.get_activation": {"name": "gelu"},
    "networks.lipschitz.mlp": {"up_norm": 1.0, "down_norm": 1.0, "activation": "gelu"},
    "networks.lipschitz.normalization": {"epsilon": 1e-5, "gain": 1.0, "least_spread": 0.1},
    "networks.lipschitz.normalization_radius": {"width": 4, "gain": 1.0, "offset": 0.1, "epsilon": 0.0},
    "networks.lipschitz.residual": {"branch": 0.5},
    "networks.perturbation.correction": {"network": NET, "update_norms": [0.1, 0.2]},
    "networks.perturbation.deviation_log": {
        "network": NET,
        "update_norms": [0.1, 0.2],
        "merged_norms": [1.0, 2.0],
        "base_input_norms": [1.0, 1.0],
        "merged_input_norms": [1.0, 1.0],
        "selected_norms": [0.5, 0.5],
    },
    "networks.perturbation.output_radius_log": {"network": NET, "norms": [1.0, 2.0]},
    "networks.perturbation.Network": {
        "base_norms": [1.0],
        "lipschitz": 1.0,
        "offsets": 0.0,
        "radius": 1.0,
        "loss_lipschitz": 1.0,
    },
    "networks.perturbation.Phi": {"log_update": 0.0, "log_base": 0.0},
    "networks.signal.Projection": {"base": 1.0, "update": 0.1, "merged": 1.1, "bias": 0.0, "row_norm": 0.5},
    "networks.signal.Signal": {"difference": 0.1, "base": 1.0, "updated": 1.0},
    "networks.stress.stress": {"networks": 2, "max_depth": 2, "batch": 2, "points": 4, "seed": 0},
    "networks.transformer.Norm": {"width": 4, "epsilon": 1e-5, "gain": 1.0, "offset": 0.0, "least_spread": 0.1},
    "expectation.noisy.NoisyLink": {"learning_rates": [0.1], "gradient_norms": 1.0, "noise_stds": 0.1, "dimension": 3},
    "printing.symbolic.phi_by_recursion": {"branch": "base", "depth": 2},
    "printing.symbolic.table1_numbers": {"method": "lora"},
    "records.Bound": {
        "name": "a",
        "kind": "high-probability",
        "source": "s",
        "value": 0.1,
        "of": "risk",
        "about": "law",
        "assumptions": ("iid",),
        "loss_range": 1.0,
        "unit": "loss",
        "delta": 0.1,
        "measured": ("m",),
        "bits": 8,
    },
    "records.bounds_frame": {"bounds": [RISK]},
    "records.exp_or_inf": {"log_value": 0.0},
    "solvable.chain.circulant_sketches": {"in_features": 4, "rank": 2, "links": 2},
    "solvable.chain.gaussian_chain": {
        "inputs": EYE,
        "coefficients": [[1.0] * 4],
        "sketches": [EYE[:2]],
        "label_std": 1.0,
        "weight_std": 1.0,
    },
    "solvable.finite.coin_model": {"num_examples": 2, "probability": 0.5, "inverse_temperature": 1.0},
    "solvable.finite.coin_posterior": {"num_examples": 2, "inverse_temperature": 1.0},
    "solvable.finite.enumerate_model": {
        "losses": [[0, 1], [1, 0]],
        "probabilities": [0.5, 0.5],
        "num_examples": 1,
        "inverse_temperature": 1.0,
        "predictions": [[0, 1], [1, 0]],
    },
    "solvable.finite.table_information": {"joint": [[1.0, 0.0], [0.0, 1.0]]},
    "solvable.regression.column_regression": {
        "inputs": EYE,
        "coefficients": [[1.0] * 4],
        "columns": [0, 1],
        "label_std": 1.0,
        "weight_std": 1.0,
    },
    "solvable.regression.gaussian_mean": {"num_examples": 3, "dimension": 1, "data_std": 1.0, "weight_std": 1.0},
    "solvable.regression.linear_regression": {
        "features": EYE,
        "means": EYE,
        "label_std": 1.0,
        "weight_std": 1.0,
        "ridge": 0.1,
    },
    "solvable.regression.sketched_regression": {
        "inputs": EYE,
        "coefficients": [[1.0] * 4],
        "sketch": EYE[:2],
        "label_std": 1.0,
        "weight_std": 1.0,
    },
}

ELSEWHERE = {
    "takes models, weights or configurations, tested with them": {
        "heads.head_modules",
        "heads.trained_heads",
        "heads.is_inside",
        "layers.from_module",
        "layers.from_config",
        "layers.select",
        "networks.transformer_weights.read_transformer",
        "networks.transformer.transformer_perturbation",
        "networks.transformer.Attention",
        "networks.transformer.Block",
        "networks.transformer.FeedForward",
    },
    "is itself a check": {
        "array_checks.check_matrix",
        "assumptions.check_codes",
        "checks.as_floats",
        "checks.check_choice",
        "checks.check_integer",
        "checks.check_norms",
        "checks.check_number",
        "checks.check_probability",
        "checks.check_text",
        "checks.shown",
        "expectation.description.check_record",
        "registry.check_reference",
        "registry.resolve",
        "arguments.check_of",
        "arguments.checked",
        "arguments.Integer",
        "arguments.Integers",
        "arguments.Number",
        "arguments.Numbers",
        "arguments.OpenUnit",
        "arguments.OpenUnits",
        "arguments.Table",
    },
    "is made by functions, not given to them, or holds what they return": {
        "certificates.codebook.GroupCode",
        "certificates.codebook.SubspaceCode",
        "certificates.quantize.Gauge",
        "certificates.smoothing.SmoothedBound",
        "information.cmi.Estimate",
        "networks.stress.Stress",
        "networks.stress.Tightest",
        "printing.symbolic.Statement",
        "solvable.chain.GaussianChain",
        "solvable.finite.FiniteTruth",
        "solvable.gaussian.GaussianModel",
        "solvable.gaussian.Simulation",
        "records.BoundsFrame",
        "heads.HasModules",
    },
    "is a code word, its parts or a registry's entry, refused in tests of their own": {
        "certificates.codebook.Grid",
        "certificates.codebook.decode_subspace",
        "certificates.codebook.encode_subspace",
        "certificates.coding.CodeReader",
        "certificates.coding.CodeWriter",
        "certificates.factor_code.FactorShape",
        "certificates.factor_code.decode_factors",
        "certificates.factor_code.encode_factors",
        "descriptions.Description",
        "methods.Family",
        "methods.Method",
        "expectation.rules.Rule",
        "expectation.rules.Case",
        "registry.Registry",
        "layers.LayerShape",
        "networks.lipschitz.Activation",
        "defaults.usual_alpha",
    },
    "takes exact rationals, letters or arrays of codes from its own room": {
        "networks.errata.ExactNetwork",
        "networks.errata.ScalarNetwork",
        "networks.errata.enumerated",
        "networks.errata.recursed",
        "networks.errata.violates",
        "networks.errata.find_counterexample",
        "networks.stress.tightest",
        "printing.symbolic.at_layers",
        "printing.symbolic.latex",
        "printing.symbolic.phi_closed",
        "printing.symbolic.table1_root",
        "printing.symbolic.typst",
        "printing.typst.typst",
        "information.plug_in.coded",
        "information.plug_in.count_tables",
        "information.plug_in.joint_information",
        "information.plug_in.resampled_information",
        "expectation.noisy.noisy_iteration_bound",
        "expectation.noisy.noisy_iteration_information",
    },
}

NAN, INF = math.nan, math.inf
STRANGERS = [None, object(), "-1", b"1", 1j, [[1.0], [2.0, 3.0]], {"a": 1}, 10**400, True, NAN, [0.5, NAN]]
NEGATIVE, ABOVE_ONE, ENDLESS, ZERO, BROKEN = (
    [-1.0, -5e-324, -INF, [0.5, -2.0]],
    [1.5, [0.5, 2.0]],
    [INF],
    [0.0],
    [1.5, 2.0],
)
REFUSED = {
    "nonnegative": NEGATIVE + ENDLESS,
    "extended": NEGATIVE,
    "positive": NEGATIVE + ENDLESS + ZERO,
    "range": NEGATIVE + ZERO,
    "unit": NEGATIVE + ENDLESS + ABOVE_ONE,
    "open": NEGATIVE + ENDLESS + ABOVE_ONE + ZERO + [1.0],
    "count": [0, -1, *BROKEN, INF],
    "whole": [-1, *BROKEN, INF],
    "indices": [-1, [0.2, 1.7], [0.0, 1.0]],
    "real": ENDLESS,
    "log": [],
    "nats": [-1.0, -INF, [0.5, -2.0]],
    "labels": [[0.2, 1.7, 0.1]],
}
"""Numbers that an argument of each sort refuses, beside strangers."""

SORTS = {
    "nonnegative": """
        bits complexity lengths radius score_norm value_norm output_norm gate_norm up_norm down_norm
        gate_row_norm up_row_norm gain least_spread offset branch update_norms merged_norms base_input_norms
        merged_input_norms selected_norms norms base_norms lipschitz offsets loss_lipschitz noncentrality
        weight_std ridge std empirical_risk sampled_risk nats variance learning_rates gradient_norms merged bias
        row_norm update weights
    """,
    "extended": "budget divergence information inverse_temperature loss_change difference updated",
    "positive": "sigma value_range prior_scale posterior_scale label_std data_std noise_stds",
    "range": "loss_range upper",
    "unit": """
        risks errors losses base_losses disagreement gibbs_risk gamma target_risk train_risk probability_of
        probabilities q p magnitudes
    """,
    "open": "delta alpha confidence",
    "count": """
        num_examples num_unlabelled num_sampled num_draws num_levels num_classes num_choices rank links runs
        rows length heads width dimension depth networks max_depth batch points total out_features in_features
        iterations resamples population_size
    """,
    "whole": "chosen head_numbers seed step_code",
    "indices": "counts hypotheses examples predictions columns",
    "real": "shift values levels inputs coefficients sketch features means joint left right",
    "log": "log_deviation log_update log_base log_value",
    "nats": "informations",
}
SORT = {name: sort for sort, names in SORTS.items() for name in names.split()}
OTHER = {
    "exact_tail_bound.errors": "whole",
    "cluster_bound.clusters": "labels",
    "excess_loss_bound.base": "choice",
    "cmi.estimate.levels": "count",
    "cmi.estimate_all.levels": "count",
    "plug_in.plug_in.counts": "nonnegative",
    "Signal.base": "extended",
    "Projection.base": "nonnegative",
    "cross_entropy_bound.probability": "unit",
    "smoothed_cross_entropy.probability": "unit",
    "coin_model.probability": "open",
    "log_binomial.total": "whole",
    "log_binomial.chosen": "free",
    "Bound.value": "nonnegative-value",
    "upwards.value": "log",
    "normalization.epsilon": "positive",
    "Norm.epsilon": "positive",
    "normalization_radius.epsilon": "nonnegative",
    "plan.bits": "positive",
    "evaluate.evaluate.bits": "positive",
    "table1.table1.bits": "positive",
    "subsampled_bound.sampled_risk": "unit",
    "gibbs_risk_upper.sampled_risk": "unit",
    "uniform_levels.levels": "real",
    "forms.certificate.loss_range": "positive",
    "occam_bound.loss_range": "positive",
    "subsampled_bound.loss_range": "positive",
    "chains.recursive_bound.bits": "nonnegative",
}
LISTS = {"bits", "levels", "columns", "inputs"}


def public():
    """Yield (name, callable) of everything in the ``__all__`` of theory's modules."""
    for module in pkgutil.walk_packages(theory.__path__, "theory."):
        if module.ispkg or module.name in ("theory.testing", "theory.bounds"):
            continue
        loaded = importlib.import_module(module.name)
        for name in loaded.__all__:
            found = getattr(loaded, name)
            error = isinstance(found, type) and issubclass(found, (Exception, dict))
            if not callable(found) or error or getattr(found, "__module__", "") != module.name:
                continue
            if inspect.signature(found).parameters:
                yield f"{module.name.removeprefix('theory.')}.{name}", found


PUBLIC = dict(public())


def test_every_public_function_is_fuzzed_or_its_reason_stands_here():
    elsewhere = set().union(*ELSEWHERE.values())
    assert set(PUBLIC) - set(CALLS) <= elsewhere
    assert set(CALLS) <= set(PUBLIC)


def sort_of(function, name):
    return next(
        (sort for ending, sort in OTHER.items() if f".{function}.{name}".endswith(f".{ending}")), SORT.get(name)
    )


def holds_nan(result):
    if isinstance(result, Bound):
        return holds_nan(result.value)
    if isinstance(result, (tuple, list)):
        return any(map(holds_nan, result))
    if isinstance(result, Phi):
        return math.isnan(result.log_update) or math.isnan(result.log_base)
    return isinstance(result, (float, np.ndarray)) and bool(np.isnan(result).any())


def outcome(function, arguments):
    """Return what a call gives, or the error that it raises; a warning is an error, of numpy's too."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            return function(**arguments)
    except Exception as error:
        return error


@pytest.mark.parametrize("name", CALLS)
def test_a_hostile_value_is_refused_by_name(name):
    function, valid = PUBLIC[name], CALLS[name]
    result = outcome(function, valid)
    assert not isinstance(result, Exception), result
    for argument in valid:
        sort = sort_of(name, argument)
        parameter = inspect.signature(function).parameters[argument]
        optional = parameter.default is None or "None" in str(parameter.annotation)
        numbers = REFUSED.get(sort, [])
        for value in [*STRANGERS, *numbers]:
            if (value is None and optional) or (sort is None and not alien(valid[argument], value)) or sort == "free":
                continue
            error = outcome(function, valid | {argument: value})
            said = f"{name}({argument}={value!r:.60})"
            assert isinstance(error, (TypeError, ValueError)), f"{said} gave {error!r}"
            assert argument in str(error), f"{said} was refused without its name: {error}"


def alien(given, value):
    """Whether a stranger is surely none of what an argument without numbers takes."""
    if isinstance(given, bool):
        return not isinstance(value, bool)
    if callable(given) and not isinstance(given, type):
        return not callable(value)
    if isinstance(given, str):
        return not isinstance(value, str)
    if isinstance(given, (list, tuple, dict, np.ndarray)):
        return isinstance(value, (type(None), bool, complex, float, int)) or type(value) is object
    return True


EDGES = {
    "nonnegative": [0.0, 5e-324, 1e-300, 1e300],
    "extended": [0.0, 5e-324, 1e300, INF],
    "positive": [5e-324, 1e-300, 1e300],
    "range": [5e-324, 1e300, INF],
    "unit": [0.0, 5e-324, 1.0],
    "open": [5e-324, 1e-20, 1 - 2**-53],
    "count": [2, 10**15, 2**63 - 1],
    "whole": [0],
    "log": [-INF, -1e300, 1e300],
    "nats": [0.0, 5e-324, 1e300, INF],
}
COSTLY = {
    "runs",
    "rows",
    "rank",
    "links",
    "networks",
    "max_depth",
    "batch",
    "points",
    "depth",
    "resamples",
    "head_numbers",
    "iterations",
    "heads",
}
COSTLY_IN = ("solvable", "num_levels", "plan", "stress", "draw_masks")


@pytest.mark.parametrize("name", CALLS)
def test_a_value_at_the_edge_is_refused_by_name_or_gives_no_nan(name):
    function, valid = PUBLIC[name], CALLS[name]
    for argument in valid:
        if argument in COSTLY or any(word in f"{name}.{argument}" for word in COSTLY_IN):
            continue
        for value in EDGES.get(sort_of(name, argument), []):
            result = outcome(function, valid | {argument: value})
            said = f"{name}({argument}={value!r})"
            if isinstance(result, Exception):
                assert isinstance(result, (TypeError, ValueError)), f"{said} raised {result!r}"
                assert any(word in str(result) for word in valid), f"{said}: {result}"
            else:
                assert not holds_nan(result), f"{said} gave {result}"


def above(truth, value, slack=1e-11):
    """Whether a bound lies at or above its formula, and no further than rounding explains."""
    return truth <= mpmath.mpf(float(value)) <= truth * (1 + mpmath.mpf(slack)) + mpmath.mpf(2) ** -1070


def draws(count, *scales):
    """Yield rows of numbers over many decades, from integers that are the same everywhere."""
    rng = np.random.default_rng(17)
    for _ in range(count):
        yield [float(10.0 ** rng.uniform(low, high)) for low, high in scales]


def test_theorem_1_is_never_below_exact_recursion_at_any_magnitude():
    with mpmath.workdps(60):
        for size in (1, 20, 100, 150, 300):
            for base, first, second, radius in draws(25, *[(-size, size)] * 4):
                norms = {"base_norms": [base, first], "offsets": [second, 0.0], "lipschitz": [0.5, 2.0]}
                update = [first, base]
                phi = correction(Network(**norms, radius=radius), update_norms=update)
                exact = recursed(
                    ExactNetwork(
                        **{name: [Fraction(x) for x in values] for name, values in norms.items()},
                        update_norms=[Fraction(x) for x in update],
                        radius=Fraction(radius),
                    )
                )
                for got, truth in zip((phi.log_update, phi.log_base), exact, strict=True):
                    log = mpmath.log(2 * mpmath.mpf(truth.numerator) / truth.denominator)
                    assert log <= mpmath.mpf(got) <= log + 1e-12 * (1 + abs(log))


@pytest.mark.parametrize(("base", "update"), [(1e200, 1e-200), (1e-320, 3e-320), (1e-310, 1e-312), (5e-324, 1.0)])
def test_an_update_is_not_lost_beside_a_norm_of_another_size(base, update):
    phi = correction(Network(base_norms=[base]), update_norms=[update])
    for got, truth in ((phi.update, 2 * Fraction(update)), (phi.base, 2 * Fraction(base))):
        assert truth <= Fraction(got) <= truth * (1 + Fraction(1, 10**12)) + Fraction(5e-324)


@pytest.mark.parametrize("chosen", [0, 1, 3, 64, 65, 1000])
@pytest.mark.parametrize("total", [1000, 10**6, 10**9, 10**15])
def test_log2_binomial_is_never_short(total, chosen):
    with mpmath.workdps(60):
        ways = mpmath.fsum(mpmath.log(total - i) - mpmath.log(chosen - i) for i in range(chosen)) / mpmath.log(2)
        assert above(ways, log2_binomial(total, chosen), 1e-13) or total == chosen


def test_the_formulas_of_the_bounds_are_never_undercut():
    """Sigma sqrt(2 ln2 b / n) and its kin, against 60 digits."""
    with mpmath.workdps(60):
        two, ln2 = mpmath.mpf(2), mpmath.log(2)
        for bits, sigma, change, n in draws(60, (-300, 12), (-3, 3), (-8, 2), (0, 15)):
            size = int(n) + 1
            root = mpmath.mpf(sigma) * mpmath.sqrt(two * ln2 * mpmath.mpf(bits) / size)
            setting = {"num_examples": size, "sigma": sigma}
            assert above(root, bounds.direct(bits, **setting).value)
            assert above(
                mpmath.mpf(sigma) * mpmath.sqrt(two * mpmath.mpf(bits) / size),
                bounds.information(bits, **setting).value,
            )
            capped = min(root, root / mpmath.mpf(sigma) * mpmath.mpf(change), two * mpmath.mpf(change))
            assert above(capped, bounds.excess(bits, loss_change=change, **setting).value)


def test_kl_inversion_and_what_stands_on_it_is_never_short():
    def kl(q, p):
        return sum(a * mpmath.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0)

    with mpmath.workdps(60):
        for log_q, nats, size, delta in draws(80, (-330, -0.01), (-12, 3), (0.4, 12), (-300, -0.01)):
            q, n = float(log_q), int(size) + 2
            p = mpmath.mpf(float(kl_upper(q, nats)))
            assert p == 1 or kl(mpmath.mpf(q), p) >= nats
            assert abs(float(binary_kl(q, float(p))) - nats) < 1e-6 * nats + 1e-9 or p == 1 or p < 1e-12
            for bound, budget in (
                (occam_bound(q, bits=nats, num_examples=n, delta=delta), nats * mpmath.log(2) - mpmath.log(delta)),
                (
                    pac_bayes_kl_bound(q, divergence=nats, num_examples=n, delta=delta),
                    nats + mpmath.log(2 * mpmath.sqrt(n) / mpmath.mpf(delta)),
                ),
            ):
                value = mpmath.mpf(bound.value)
                assert value == 1 or kl(mpmath.mpf(q), value) >= budget / n


GAP = bounds.direct(8, num_examples=9)
COLUMNS = bounds.plan([(4, 8)], method="cla", rank=2)[0] | {"norm_update": 0.5, "norm_base": 2.0, "norm_merged": 2.2}
DENSE = bounds.plan([(4, 8)], method="fft")[0] | {"norm_update": 0.5, "norm_base": 2.0, "norm_merged": 2.2}


@pytest.mark.parametrize(
    ("record", "changes", "named"),
    [
        (COLUMNS, {"support": []}, "support"),
        (COLUMNS, {"support": [0]}, "support"),
        (COLUMNS, {"support": [0.2, 1.7]}, "support"),
        (COLUMNS, {"support": [0, True]}, "support"),
        (COLUMNS, {"support": "01"}, "support"),
        (COLUMNS, {"support": None}, "support"),
        (COLUMNS, {"numbers_trained": 1}, "support"),
        (DENSE, {"support": [0, 1]}, "support"),
        (DENSE, {"numbers_trained": 33}, "numbers_trained"),
        (RECORD, {"numbers_trained": 3}, "numbers_trained"),
        *[
            (RECORD, {key: value}, key)
            for key in sorted(set(RECORD) - {"support", "rank", "seed", "name", "kind", "a_trained"})
            for value in (None, "1", True, math.nan, -1, math.inf, 1j, [1], object())
        ],
        *[(RECORD, {"a_trained": value}, "a_trained") for value in (None, 1, "yes")],
        *[(RECORD, {"kind": value}, "kind") for value in (None, 1, "sparse")],
        *[(RECORD, {key: value}, key) for key in ("rank", "seed") for value in (-1, 1.5, True, "1")],
    ],
)
def test_a_record_that_is_none_or_contradicts_itself_is_refused(record, changes, named):
    for function in (bounds.update_bounds, bounds.from_update):
        with pytest.raises((TypeError, ValueError), match=named):
            function([record | changes], num_examples=100)
    with pytest.raises((TypeError, ValueError), match=named):
        bounds.description_bits(record | changes)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: excess_loss_bound([0, 1], [0, 1], bits=-2, delta=0.05), "bits"),
        (lambda: fold_bound([0.1], bits=[math.nan], fold_sizes=[9], delta=0.1), "bits"),
        (lambda: subsampled_bound([0.1, math.nan], bits=1, num_examples=9, num_sampled=9, delta=0.1), "sampled_risk"),
        (lambda: disagreement_bound(-0.5, 0.1, num_unlabelled=9, delta=0.1), "surrogate_bound"),
        (lambda: Bound(name="a", kind="expectation", source="s", value=0.1, log_value=5), "log_value"),
        (lambda: Bound(name="a", kind="expectation", source="s", value=-0.1), "value"),
        (lambda: Bound(name="a", kind="expectation", source="s", value=math.nan), "value"),
        (lambda: Bound(name="a", kind="high-probability", source="s", value=0.1, delta=0.0), "delta"),
        (lambda: for_model("vit-tiny", target_modules="("), "target_modules"),
        (
            lambda: disagreement_bound(bounds.direct(8, num_examples=9), 0.1, num_unlabelled=9, delta=0.1),
            "surrogate_bound",
        ),
    ],
)
def test_the_wrong_numbers_that_were_once_given_are_refused(call, named):
    with pytest.raises((TypeError, ValueError), match=named):
        call()


def test_a_tiny_delta_is_kept_and_leaves_the_confidence_below_one():
    bound = occam_bound(0.1, bits=8, num_examples=100, delta=1e-20)
    assert bound.delta == 1e-20
    assert bound.confidence < 1
