"""How the gradient of a loss flows through time: diagnosis of anything that can be trained.

All take any ``loss(batch, state) -> (summed loss, state)``, as the gradient methods do; a batch is
whatever can be cut along time.

    batches         what can be cut along time: tensors, pytrees of them, anything that slices
    ledger          the exact gradient, split by how many steps back it reaches
    adjoints        dL/dS_t of every state
    jacobians       how much a state changes those after it: norms ‖∂S_t/∂S_{t-k}‖, spectral radii
    lyapunov        Lyapunov exponents on the whole state
    saturation      the share of activations so far out that hardly a gradient passes them
    sign_flip_test  whether gradients of different times agree: is there anything to be learnt
    diagnosis       what all this means, in words, and what to do
    examination     all of it together
    parameters      the parameters of a loss, found in its graph

Beneath: _contract (what a loss must be), _unrolled (a loss as steps), _passes (its states),
_jacobian_products, _krylov (what is known from products only), _rng_state.
"""

from throughtime.gradflow._contract import Loss
from throughtime.gradflow.adjoints import adjoints
from throughtime.gradflow.batches import Timed, along_time
from throughtime.gradflow.diagnosis import Evidence, Verdict, diagnose
from throughtime.gradflow.examination import Examination, examine
from throughtime.gradflow.jacobians import (
    JacobianNorms,
    NormsByLag,
    jacobian_norms,
    spectral_radius,
    step_radius,
)
from throughtime.gradflow.ledger import ByLag, Ledger, ledger
from throughtime.gradflow.lyapunov import Lyapunov, lyapunov
from throughtime.gradflow.parameters import parameters
from throughtime.gradflow.saturation import saturation
from throughtime.gradflow.sign_flip_test import sign_flip_test

__all__ = [
    "ByLag",
    "Evidence",
    "Examination",
    "JacobianNorms",
    "Ledger",
    "Loss",
    "Lyapunov",
    "NormsByLag",
    "Timed",
    "Verdict",
    "adjoints",
    "along_time",
    "diagnose",
    "examine",
    "jacobian_norms",
    "ledger",
    "lyapunov",
    "parameters",
    "saturation",
    "sign_flip_test",
    "spectral_radius",
    "step_radius",
]
