"""Money cannot run away: a ledger that is right, caps that hold, and less to pay."""

from rtpipe_cost_governor.config import Caps, Config
from rtpipe_cost_governor.plugin import CostGovernor

__all__ = ["Caps", "Config", "CostGovernor"]
