from .certify import GRIDS as GRIDS
from .certify import certify as certify
from .results import write_certificate_results as write_certificate_results
from .short_code import TrainingOptions as TrainingOptions
from .table import certificate_table as certificate_table
from .verify import verify as verify
