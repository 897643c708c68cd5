from . import adapters as adapters
from . import bounds as bounds
from . import curvature as curvature
from . import landscape as landscape
from . import spectra as spectra
from . import streaming as streaming
from . import sweep as sweep
