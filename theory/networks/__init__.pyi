from . import errata as errata
from . import stress as stress
from .lipschitz import ACTIVATIONS as ACTIVATIONS
from .perturbation import Network as Network
from .perturbation import Phi as Phi
from .perturbation import correction as correction
from .perturbation import deviation_log as deviation_log
