"""How the gradient of a loss flows through time: diagnosis of anything that can be trained.

All take any ``loss(batch, state) -> (summed loss, state)``, as the gradient methods do.

    ledger      the exact gradient, split by how many steps back it reaches
    adjoints    dL/dS_t of every state
    jacobians   how much a state changes those after it: norms ‖∂S_t/∂S_{t-k}‖, spectral radii
    lyapunov    Lyapunov exponents on the whole state
    saturation  the share of activations so far out that hardly a gradient passes them
    signal      whether gradients of different times agree: is there anything to be learnt
    verdict     what all this means, in words, and what to do
    examine     all of it together

Beneath: rows and products (Jacobians of many steps), krylov (what is known from products only).
"""

from throughtime.gradflow.adjoints import adjoints
from throughtime.gradflow.diagnosis import Evidence, Verdict, diagnose
from throughtime.gradflow.examine import Examination, examine
from throughtime.gradflow.found import parameters
from throughtime.gradflow.jacobians import (
    JacobianNorms,
    jacobian_norms,
    spectral_radius,
    step_radius,
)
from throughtime.gradflow.ledger import Ledger, ledger
from throughtime.gradflow.lyapunov import Lyapunov, lyapunov
from throughtime.gradflow.saturation import saturation
from throughtime.gradflow.signal import signal

__all__ = [
    "Evidence",
    "Examination",
    "JacobianNorms",
    "Ledger",
    "Lyapunov",
    "Verdict",
    "adjoints",
    "diagnose",
    "examine",
    "jacobian_norms",
    "ledger",
    "lyapunov",
    "parameters",
    "saturation",
    "signal",
    "spectral_radius",
    "step_radius",
]
