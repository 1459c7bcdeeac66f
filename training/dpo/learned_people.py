"""A vector for each known person that is trained with the adapter (Premier, arXiv 2603.20725).

The vectors are a parameter of the adapter while it is trained and are exported beside it: what is
served is the adapter alone.

Legend: U people, D embedding.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ppd_model.nets.adapter import Adapter
from training.data.dataset import PreferencePairs

PEOPLE = "people_UD"
PEOPLE_FILE = "people.safetensors"
SMALL = 0.01
"""Of the vectors at the start. The projector looks at directions only: from small ones the usual
learning rate finds its way in a few steps."""


def learned_people(adapter: Adapter, pairs: PreferencePairs, seed: int) -> PreferencePairs:
    """Put the vectors into the adapter; the pairs with them in the place of embeddings."""
    generator = torch.Generator().manual_seed(seed)
    start_UD = SMALL * torch.randn(pairs.people, adapter.user_emb_dim, generator=generator)
    vectors_UD = nn.Parameter(start_UD.to(adapter.projector.center_D.device))
    adapter.register_parameter(PEOPLE, vectors_UD)
    return replace(
        pairs,
        user_emb_ED=vectors_UD,
        first_embedding_U=torch.arange(pairs.people),
        embeddings_U=torch.ones(pairs.people, dtype=torch.long),
        sets_P=torch.ones_like(pairs.sets_P),
    )
