from .chain import circulant_sketches as circulant_sketches
from .chain import gaussian_chain as gaussian_chain
from .finite import coin_model as coin_model
from .finite import coin_posterior as coin_posterior
from .regression import column_regression as column_regression
from .regression import gaussian_mean as gaussian_mean
from .regression import sketched_regression as sketched_regression
