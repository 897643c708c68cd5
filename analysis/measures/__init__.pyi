from .checkpoints import choose_checkpoint as choose_checkpoint
from .folder import measure_runs as measure_runs
from .geometry import adapted_weights as adapted_weights
from .geometry import checkpoint_states as checkpoint_states
from .geometry import run_updates as run_updates
from .geometry import training_batch as training_batch
from .intruders import EPSILONS as EPSILONS
from .intruders import intruder_measures as intruder_measures
