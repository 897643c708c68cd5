from . import cmi as cmi
from . import inequalities as inequalities
from .cmi import draw_masks as draw_masks
from .cmi import estimate as estimate
from .inequalities import xu_raginsky as xu_raginsky
from .variational import chi_square_gap as chi_square_gap
from .variational import dual_gap as dual_gap
