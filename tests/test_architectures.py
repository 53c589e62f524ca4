import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_bench import architectures, networks, paper
from resnet_bench.architectures import ARCHITECTURES, CONTROLS, Architecture
from resnet_bench.errors import UserError
from resnet_bench.networks import ResidualNetwork

EXACT = {"baseline": 8_942_524, "fc1": 1_468_724, "fc3": 18_296_124, "blocks2": 16_608_956, "conv5x5": 1_741_884}
ALL = {**ARCHITECTURES, **CONTROLS}

designs = st.lists(st.tuples(st.sampled_from([16, 32]), st.sampled_from([1, 2])), min_size=1, max_size=3).flatmap(
    lambda blocks: st.builds(
        Architecture,
        id=st.just("x"),
        published_name=st.just(""),
        change=st.just(""),
        widths=st.just(tuple(b[0] for b in blocks)),
        strides=st.just(tuple(b[1] for b in blocks)),
        kernel_size=st.sampled_from([3, 5]),
        hidden=st.lists(st.integers(1, 30), max_size=2).map(tuple),
    )
)


@pytest.mark.parametrize("name", EXACT)
def test_exact_parameter_count(name):
    """The reconstructed designs have the counts they are known by, for 100 classes."""
    network = ResidualNetwork(ARCHITECTURES[name], 100)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == EXACT[name]
    assert networks.parameter_count(ARCHITECTURES[name]) == EXACT[name]


@pytest.mark.parametrize("architecture", architectures.every().values(), ids=lambda a: a.id)
def test_counting_without_building_the_network_gives_the_same(architecture):
    of_attention = sum(p.numel() for n, p in ResidualNetwork(architecture, 7).named_parameters() if "attention" in n)
    count = networks.parameter_count(architecture, 7)
    assert architectures.plain_parameter_count(architecture, 7) == count - of_attention
    assert bool(of_attention) == (architecture.attention is not None)


@pytest.mark.parametrize("published", paper.PUBLISHED.values(), ids=lambda p: p.architecture)
def test_rounds_to_the_published_count(published):
    """Every printed count is the module's count, in the paper's rounding."""
    count = networks.parameter_count(ARCHITECTURES[published.architecture])
    assert published.parameters in (None, architectures.millions(count))


@pytest.mark.parametrize("name", ALL)
def test_published_names_are_the_papers(name):
    """An architecture and its published figures carry the same name; controls have none."""
    published = paper.PUBLISHED.get(name)
    assert ALL[name].published_name == (published.name if published else "")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("num_classes", [10, 100])
def test_logits_shape(name, num_classes):
    """[batch, 3, 32, 32] gives logits [batch, classes] for any class count, without a final ReLU."""
    network = ResidualNetwork(ALL[name], num_classes)
    logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, num_classes)
    assert (logits < 0).any()


@settings(max_examples=20)
@given(designs, st.integers(2, 12))
def test_closed_forms_agree_with_the_module(design, num_classes):
    """Feature count, FC share and multiply-accumulates equal what hooks on the real module see."""
    network = ResidualNetwork(design, num_classes).eval()
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        per_output = module.weight[0].numel()
        macs += per_output * output[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert macs == networks.multiply_accumulates(design, num_classes)
    fc = sum(p.numel() for p in network.fc.parameters())
    assert fc == architectures.fc_parameter_count(design, num_classes)
    first = next(m for m in network.fc if isinstance(m, nn.Linear))
    assert first.in_features == design.features


def test_each_variant_changes_one_thing():
    """Except conv5x5, whose published count forces other strides, variants differ from the baseline in one field."""
    base = ARCHITECTURES["baseline"]
    fields = ("widths", "strides", "kernel_size", "hidden")
    changed = {
        name: [f for f in fields if getattr(a, f) != getattr(base, f)] for name, a in ALL.items() if a is not base
    }
    assert changed["fc1"] == changed["fc3"] == ["hidden"]
    assert changed["blocks2"] == ["widths", "strides"]  # fewer blocks: both lists are shorter
    assert changed["conv5x5"] == ["strides", "kernel_size"]
    assert changed["conv5x5-same"] == ["kernel_size"]
    assert CONTROLS["blocks2-same"].features == base.features


def test_initial_weights_are_a_function_of_the_seed():
    """The same seed gives the same weights, another gives others, and the global generator is not touched."""
    before = torch.random.get_rng_state()
    a, b, c = (networks.build(ARCHITECTURES["conv5x5"], 10, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["fc.0.weight"], c["fc.0.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_unknown_architecture_lists_the_known():
    with pytest.raises(UserError, match="no architecture 'resnet50'; choose one of baseline, fc1"):
        architectures.get("resnet50")


def test_taps_of_conv5x5_that_see_nothing_but_padding_have_no_gradient() -> None:
    """On the last block's 2×2 map only the 3×3 taps in the middle of the 5×5 kernel meet a pixel."""
    network = networks.build(architectures.CONV5X5, 10, seed=0)
    network(torch.randn(4, 3, 32, 32)).sum().backward()
    untrained = 0
    for name, parameter in network.blocks.named_parameters():
        assert parameter.grad is not None
        if name.endswith(("conv1.weight", "conv2.weight")):
            taps = (parameter.grad == 0).all(dim=0).all(dim=0)
            untrained += int(taps.sum()) * parameter.shape[0] * parameter.shape[1]
    assert untrained == 16 * 128 * 128 == 262_144
