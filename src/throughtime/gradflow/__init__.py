"""How far back a gradient reaches, what grows and what dies on the way, and what to do about it.

    products    products with the Jacobian of many steps
    krylov      largest singular values and eigenvalues from products only
    jacobians   norms ‖∂S_t/∂S_{t-k}‖, spectral radii
    lyapunov    Lyapunov exponents on the whole state
"""

from throughtime.gradflow.jacobians import (
    JacobianNorms,
    jacobian_norms,
    spectral_radius,
    step_radius,
)
from throughtime.gradflow.lyapunov import Lyapunov, lyapunov

__all__ = [
    "JacobianNorms",
    "Lyapunov",
    "jacobian_norms",
    "lyapunov",
    "spectral_radius",
    "step_radius",
]
