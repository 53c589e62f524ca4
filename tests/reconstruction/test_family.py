"""The closed forms count what torch counts, and the canonical design is the five architectures."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.networks import parameter_count
from resnet_bench.reconstruction import CANONICAL, Design
from resnet_bench.reconstruction.family import HIDDEN_WIDTHS, KERNELS_5X5
from tests.reconstruction.modules import BODIES, counted_networks

HIDDEN = st.sampled_from(HIDDEN_WIDTHS)


@settings(deadline=None, max_examples=40)
@given(
    BODIES, HIDDEN, st.tuples(HIDDEN, HIDDEN), st.sampled_from(KERNELS_5X5), st.tuples(*[st.sampled_from((1, 2))] * 4)
)
def test_closed_form_counts_what_torch_counts(body, hidden, fc3_hidden, kernels, strides):
    design = Design(body, hidden, fc3_hidden, kernels, strides)
    assert design.counts == counted_networks(design)


def test_canonical_design_is_the_five_architectures():
    assert CANONICAL.counts == {a: parameter_count(architecture) for a, architecture in ARCHITECTURES.items()}
