"""How the gradient of a loss flows through time: diagnosis of anything that can be trained.

All take any ``loss(batch, state) -> (summed loss, state)``, as the gradient methods do.

    ledger      the exact gradient, split by how many steps back it reaches
    adjoints    dL/dS_t of every state
"""

from throughtime.gradflow.adjoints import adjoints
from throughtime.gradflow.ledger import Ledger, ledger

__all__ = ["Ledger", "adjoints", "ledger"]
