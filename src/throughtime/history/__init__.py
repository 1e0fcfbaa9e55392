"""The history certificate: how much of the past data need, with the evidence.

    cert = tt.history.certificate("sales.csv", value="sold")
    print(cert.verdict)

`certificate` reads and splits data as `tt.fit` does; `certificate_of` works from parts that a fit
has already. Four answers: does order matter at all, how many lags are needed, does a latent state
beat every finite order, and what to set.
"""

from throughtime.history.certificate import (
    Certificate,
    Lags,
    Steps,
    certificate,
    certificate_of,
    with_network,
)
from throughtime.history.lag_selection import Point
from throughtime.history.latent_gain import LatentGain
from throughtime.history.permutation_test import OrderMatters
from throughtime.history.recommendation import Recommendation

__all__ = [
    "Certificate",
    "Lags",
    "LatentGain",
    "OrderMatters",
    "Point",
    "Recommendation",
    "Steps",
    "certificate",
    "certificate_of",
    "with_network",
]
