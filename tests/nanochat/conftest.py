"""One thread for every test: results to the bit, and no fight over cores."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
