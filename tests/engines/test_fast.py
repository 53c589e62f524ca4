"""The engine `fast`: each of its formulas against float64, and whole trainings against `reference`.

Tolerances come from the rounding of float32, u = 2⁻²⁴. A sum of n products is within γ = n·u / (1 - n·u) of the exact
one, relative to the sum of the products' magnitudes, in whatever order it is added up (Higham, Accuracy and Stability
of Numerical Algorithms, section 3.1). What follows from a sum carries that error on, to first order; SLACK covers the
rest. Where steps follow each other, training amplifies every rounding error, and the yardstick is `reference` itself:
its own distance, in float32, from the same training in float64.
"""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor import codecache, exc
from torch._inductor import config as inductor_config
from torch.nn import functional as F

from resnet_bench import engines, networks
from resnet_bench.architectures import ARCHITECTURES, Architecture
from resnet_bench.attention import ATTENTION, ChannelAttention
from resnet_bench.clock import NoClock
from resnet_bench.engines import _adam, _cpp, _layer, _products, _units, fast, fast_bf16, reference
from resnet_bench.engines._coarse import CoarseCopy
from resnet_bench.engines._units import UnitGradient
from resnet_bench.engines.base import Engine
from resnet_bench.errors import UserError
from resnet_bench.networks import ResidualNetwork
from resnet_bench.recipe import Recipe
from resnet_bench.schedules import SCHEDULES, LearningRates

U = 2.0**-24  # largest relative rounding error of float32
SLACK = 2  # second-order terms
SMALL = Architecture("small", "", "", widths=(8, 8), strides=(2, 2), hidden=(20, 12))
CLASSES = 5

has_bf16 = any(torch.cpu.get_capabilities().get(name, False) for name in fast_bf16.INSTRUCTIONS)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A compile cache for this module alone, empty at first; and what is for large layers is for small ones too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "WORTH_RESTING", 1)
        patch.setattr(_products, "OWN_ELEMENTS", 1)
        forget_compiled()
        folder = tmp_path_factory.mktemp("inductor")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder
    forget_compiled()


def forget_compiled() -> None:
    """As in a process whose first engine comes now."""
    fast.compiled_for.cache_clear()
    fast_bf16.compiled_features.cache_clear()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batches(count: int, size: int = 4, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, 32, 32, generator=generator), torch.randint(0, CLASSES, (size,), generator=generator))
        for _ in range(count)
    ]


def network(attention: str | None = None) -> ResidualNetwork:
    return networks.build(replace(SMALL, attention=attention), CLASSES, seed=0)


def train(engine: Engine, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The losses, in the engine's precision."""
    dtype = next(engine.network.parameters()).dtype
    return torch.stack([engine.step(images.to(dtype), labels, NoClock()) for images, labels in data])


def weights(engine: Engine) -> Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in engine.network.parameters()])


def everything(engine: Engine) -> dict[str, Tensor]:
    """All state that a step changes, by name."""
    moments = {f"{i}.{k}": t for i, s in engine.optimizer_state()["state"].items() for k, t in s.items()}
    return deepcopy({**engine.network.state_dict(), **moments})


def take_over(engine: Engine, before: Engine) -> None:
    """Put an engine into the state of another, as a checkpoint does."""
    engine.network.load_state_dict(deepcopy(before.network.state_dict()))
    engine.load_optimizer_state(deepcopy(before.optimizer_state()))


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


SCRIPT = """
import hashlib, sys, torch
sys.path[:0] = [{folder!r}]
import test_fast as t
t.fast.WORTH_RESTING = t._products.OWN_ELEMENTS = 1
torch.use_deterministic_algorithms(True)
engine = t.fast.Engine(t.network(), t.Recipe())
t.train(engine, t.batches(10) + t.batches(1, size=2))
state = t.everything(engine)
print(hashlib.sha256(b"".join(state[k].contiguous().numpy().tobytes() for k in state)).hexdigest())
"""


def test_the_same_weights_in_every_process_with_cold_or_warm_cache(cache: Path) -> None:
    """And where there are CUDA's tools but no device, nobody is told so."""

    # The first test of the module: it finds the cache empty, and what it compiles serves the others.
    def run() -> str:
        script = SCRIPT.format(folder=str(Path(__file__).parent))
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), "CUDA_HOME": str(cache)}
        process = subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True, timeout=300
        )
        assert "CUDA" not in process.stderr
        return process.stdout

    cold, warm = run(), run()
    assert cold == warm
    assert len(cold.strip()) == 64


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(1, 40, 7), (4, 512, 33), (17, 40, 7)])
def test_products_are_exact_within_the_rounding_of_a_sum(
    large: bool, batch: int, inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_products, "OWN_ELEMENTS", 1 if large else 2**30)
    x, weight, bias = random(batch, inputs), random(inputs, outputs, seed=2), random(outputs, seed=3)
    for b in (None, bias):
        exact, magnitude = x.double() @ weight.double(), x.double().abs() @ weight.double().abs()
        if b is not None:
            exact, magnitude = exact + b.double(), magnitude + b.double().abs()
        bound = SLACK * (inputs + 1) * U * magnitude
        assert ((_products.product(x, weight, b).double() - exact).abs() <= bound).all()
        assert ((_products.product(x, weight.t().contiguous().t(), b).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("idle_too", [False, True])
def test_head_gives_the_loss_and_gradients_of_autograd_in_float64(idle_too: bool) -> None:
    """Errors are followed layer by layer.

    A product is off by |Δx||W| + γ|x||W|, and a softmax whose logits are off by δ by at most 2δ.
    """
    x, labels = random(4, 128), torch.tensor([0, 4, 4, 2])
    sizes = [(128, 20), (20, 12), (12, CLASSES)]
    w32 = [random(i, o, seed=o) / i**0.5 for i, o in sizes]
    b32 = [random(o, seed=100 + o) for _, o in sizes]
    loss, x_gradient, gradients = _units.head(x, labels, w32, b32, idle_too)

    w64, b64 = [w.double() for w in w32], [b.double() for b in b32]
    for parameter in (*w64, *b64):
        parameter.requires_grad_()
    x64 = x.double().requires_grad_()
    out, errors = x64, [torch.zeros(4, 128, dtype=torch.float64)]  # errors of the layers' inputs and the logits
    for w, b in zip(w64, b64, strict=True):
        rounding = (len(w) + 2) * U * (out.detach().abs() @ w.detach().abs() + b.detach().abs())
        errors.append(errors[-1] @ w.detach().abs() + rounding)
        out = out @ w + b
        if w is not w64[-1]:
            assert (out.abs() > errors[-1]).all()  # no unit is on in one precision and off in the other
            out = torch.relu(out)
    expected = F.cross_entropy(out, labels)
    expected.backward()

    delta = float(errors[-1].max()) + (CLASSES + 8) * U * (1 + float(out.detach().abs().max()))
    assert abs(loss.double() - expected.detach()) <= SLACK * 2 * delta
    g_error = torch.full((4, CLASSES), 2 * delta / 4 + 4 * U, dtype=torch.float64)
    for k in (2, 1, 0):
        of_weight = gradients[2 * k]
        assert isinstance(of_weight, UnitGradient)
        x_in, g = of_weight.units.double(), of_weight.columns.double()
        if k == 0:  # by outputs, not by inputs
            x_in, g = g, x_in
        weight_bound = x_in.abs().t() @ g_error + errors[k].t() @ g.abs() + 4 * U * (x_in.abs().t() @ g.abs())
        assert ((x_in.t() @ g - w64[k].grad).abs() <= SLACK * weight_bound).all()
        bias_bound = g_error.sum(0) + 4 * U * g.abs().sum(0)
        assert ((gradients[2 * k + 1].double() - b64[k].grad).abs() <= SLACK * bias_bound).all()
        w = w64[k].detach().abs()
        g_error = g_error @ w.t() + (w.shape[1] + 1) * U * (g.abs() @ w.t())
    assert x64.grad is not None
    assert ((x_gradient.double() - x64.grad).abs() <= SLACK * g_error).all()


def test_a_network_whose_parameters_were_moved_is_refused() -> None:
    """The engine would go on with those that nobody sees any more."""
    own = network()
    engine = fast.Engine(own, Recipe())
    ((images, labels),) = batches(1)
    own.to(torch.float64).to(torch.float32)
    with pytest.raises(RuntimeError, match="parameters were moved"):
        engine.step(images, labels, NoClock())
    with pytest.raises(RuntimeError, match="parameters were moved"):
        engine.logits(images)


def test_a_network_that_is_given_other_statistics_is_refused() -> None:
    """Evaluation would read those that nobody sees any more."""
    engine = fast.Engine(network(), Recipe())
    engine.network.load_state_dict(network().state_dict(), assign=True)
    with pytest.raises(RuntimeError, match="parameters were moved"):
        engine.logits(random(2, 3, 32, 32))


@pytest.mark.parametrize("batch", [4, _units.FUSED_BATCH, _units.FUSED_BATCH + 1])
@pytest.mark.parametrize("name", [*ARCHITECTURES, "tiny"])
def test_it_says_before_it_is_built_whether_it_will_leave_idle_units_out(name: str, batch: int) -> None:
    tiny = replace(ARCHITECTURES["baseline"], id="tiny", hidden=(20,))
    architecture = ARCHITECTURES.get(name, tiny)
    engine = fast.Engine(networks.build(architecture, 10, seed=0), Recipe(batch_size=batch))
    assert bool(engine._unit_weights) is fast.Engine.leaves_idle_units_out(architecture, engine.recipe)
    assert not fast.Engine.leaves_idle_units_out(architecture, Recipe(batch_size=17))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("batch", [4, _units.FUSED_BATCH + 1])
def test_twenty_updates_follow_torch_adam_in_float64(batch: int, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is followed along the float64 run, to first order.

    Each step rounds each operation once (8u covers them) and carries on the moments' errors, which the betas damp, and
    the parameter's, which add up.
    """
    monkeypatch.setattr(_units, "WORTH_RESTING", 1 if large else 2**20)
    recipe = Recipe(lr=1e-2)
    (beta1, beta2), eps = recipe.betas, recipe.eps
    shapes = [(30, 7), (7,), (4, 3, 3, 3)]
    p32 = [random(*s, seed=i) for i, s in enumerate(shapes)]
    p32[2] = p32[2].contiguous(memory_format=torch.channels_last)
    m32, v32 = [torch.zeros_like(p) for p in p32], [torch.zeros_like(p) for p in p32]
    p64 = [p.double().requires_grad_() for p in p32]
    adam = torch.optim.Adam(p64, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)
    parameters = _adam.Parameters(list(zip(p32, m32, v32, strict=True)))
    p_error, m_error, v_error = ([torch.zeros_like(p).detach() for p in p64] for _ in range(3))
    for t in range(1, 21):
        pair = random(batch, 30, seed=50 + t), random(batch, 7, seed=100 + t)
        rest = random(7, seed=150 + t), random(4, 3, 3, 3, seed=200 + t)  # the last one not in the parameter's order
        correction = torch.tensor([recipe.lr / (1 - beta1**t), (1 - beta2**t) ** 0.5])
        _units.update(parameters, [UnitGradient(None, *pair), *rest], correction, recipe.betas, eps)

        magnitude = pair[0].double().abs().t() @ pair[1].double().abs()
        gradients = [pair[0].double().t() @ pair[1].double(), rest[0].double(), rest[1].double()]
        for p, g in zip(p64, gradients, strict=True):
            p.grad = g
        adam.step()
        step_size, root = recipe.lr / (1 - beta1**t), (1 - beta2**t) ** 0.5
        for i, (p, g) in enumerate(zip(p64, gradients, strict=True)):
            m, v = adam.state[p]["exp_avg"], adam.state[p]["exp_avg_sq"]
            g_error = batch * U * magnitude if i == 0 else torch.zeros_like(g)
            m_error[i] = beta1 * m_error[i] + (1 - beta1) * g_error + 8 * U * (m.abs() + g.abs())
            v_error[i] = beta2 * v_error[i] + (1 - beta2) * 2 * g.abs() * g_error + 8 * U * v
            denominator = v.sqrt() / root + eps
            ratio = m.abs() / denominator
            change = m_error[i] / denominator + ratio * (v_error[i] / (2 * v.sqrt() * root * denominator) + 8 * U)
            p_error[i] = p_error[i] + step_size * change + U * p.detach().abs()
            assert ((m32[i].double() - m).abs() <= SLACK * m_error[i]).all()
            assert ((v32[i].double() - v).abs() <= SLACK * v_error[i]).all()
            assert ((p32[i].double() - p.detach()).abs() <= SLACK * p_error[i]).all()


def test_epsilon_stands_outside_the_root() -> None:
    """For a gradient of the size of eps, which only shows where eps is added."""
    p, gradient = torch.zeros(1), torch.tensor([1e-8])
    reference_p = torch.zeros(1, requires_grad=True)
    reference_p.grad = gradient.clone()
    torch.optim.Adam([reference_p], lr=0.1).step()
    correction = torch.tensor([0.1 / (1 - 0.9), (1 - 0.999) ** 0.5])
    _units.update(_adam.Parameters([(p, torch.zeros(1), torch.zeros(1))]), [gradient], correction, (0.9, 0.999), 1e-8)
    assert p.item() == pytest.approx(reference_p.item(), rel=100 * U)
    assert p.item() == pytest.approx(-0.05, rel=1e-3)


def perturbed(network: ResidualNetwork, seed: int) -> ResidualNetwork:
    """Every weight changed at random, by at most 2⁻²³ of its value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 1 + (2 * torch.rand(parameter.shape, generator=generator) - 1) * 2 * U
    return network


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "attention"),
    [
        ("constant", 0, None),
        *((schedule, 20, None) for schedule in SCHEDULES),
        *(("constant", 0, attention) for attention in ATTENTION),
    ],
)
def test_losses_of_200_steps_agree_with_reference_within_its_own_rounding(
    schedule: str, warmup_steps: int, attention: str | None
) -> None:
    """No formula bounds 200 steps: where an activation passes zero, training jumps on any difference.

    What rounding does to this training is measured on `reference`: the distance from float64 of four runs whose weights
    start within 2⁻²³ of each other. Up to each step `fast` may be 8 times as far as the farthest of them, and 8u of the
    loss.
    """
    data, recipe = batches(200), Recipe(schedule=schedule, warmup_steps=warmup_steps)
    rates = recipe.learning_rates(len(data))

    def start() -> ResidualNetwork:
        return network(attention)

    exact = train(reference.Engine(start().double(), recipe, rates), data)
    starts = [start(), *(perturbed(start(), seed) for seed in range(3))]
    runs = torch.stack([train(reference.Engine(network, recipe, rates), data) for network in starts])
    yardstick = (runs.double() - exact).abs().cummax(1).values.max(0).values
    losses = train(fast.Engine(start(), recipe, rates), data)
    assert ((losses.double() - exact).abs() <= 8 * yardstick + 8 * U * exact).all()
    assert yardstick[50] < 1e-4  # it is a yardstick at all


@pytest.fixture
def nothing_compiled() -> None:
    forget_compiled()


@pytest.fixture(scope="module")
def trained() -> fast.Engine:
    """Six steps old; tests copy what they change."""
    engine = fast.Engine(network(), Recipe())
    train(engine, batches(6))
    return engine


def assert_close_to_float64(engine: Engine, data: list[tuple[Tensor, Tensor]]) -> None:
    """After `data`, the weights are not much farther from a float64 training than those of `reference` in float32.

    8 times, for the different order of sums; and the rounding of the weights themselves.
    """
    exact, plain = reference.Engine(network().double(), Recipe()), reference.Engine(network(), Recipe())
    train(exact, data)
    train(plain, data)
    target = weights(exact)
    distance, yardstick = (weights(engine) - target).norm(), (weights(plain) - target).norm()
    assert distance <= 8 * yardstick + U * target.norm()


def test_a_smaller_last_batch_trains_like_reference() -> None:
    data = [*batches(3), *batches(1, size=2, seed=1), *batches(2, seed=2), *batches(1, size=1, seed=3)]
    # One image alone has no variance within a channel only where the feature map is 1×1; here it is 4×4.
    engine = fast.Engine(network(), Recipe())
    train(engine, data)
    assert_close_to_float64(engine, data)


@pytest.mark.parametrize("kind", [reference.Engine, fast.Engine])
def test_one_image_on_a_map_of_one_pixel_is_an_error(kind: type[Engine]) -> None:
    """Its variance would be 0 / 0, and the running variance NaN from then on."""
    shrunk = networks.build(replace(SMALL, widths=(8,) * 4, strides=(2,) * 4), CLASSES, seed=0)
    with pytest.raises(ValueError, match="more than"):
        kind(shrunk, Recipe(batch_size=4)).step(*batches(1, size=1)[0], NoClock())
    assert all(buffer.isfinite().all() for buffer in shrunk.buffers())


@pytest.mark.parametrize(("hidden", "classes"), [((1,), CLASSES), ((20, 1), CLASSES), ((), 1)])
def test_layers_of_one_unit_train_like_reference(hidden: tuple[int, ...], classes: int) -> None:
    """Their weights are contiguous in both orders, so strides do not tell which are transposed."""
    data = [(images, labels % classes) for images, labels in batches(3)]
    plain, engine = (
        made(networks.build(replace(SMALL, hidden=hidden), classes, seed=0), Recipe())
        for made in (reference.Engine, fast.Engine)
    )
    assert isinstance(engine, fast.Engine)
    engine._compiled = fast.Compiled(warm=True)
    torch.testing.assert_close(train(engine, data), train(plain, data))
    take_over(engine, plain)
    assert_identical(everything(engine), everything(plain))


def test_a_recipe_of_large_batches_takes_matrix_products_and_trains_like_reference() -> None:
    data = batches(3, size=_units.FUSED_BATCH + 1)
    engine = fast.Engine(network(), Recipe(batch_size=_units.FUSED_BATCH + 1))
    train(engine, data)
    assert_close_to_float64(engine, data)


@pytest.mark.usefixtures("nothing_compiled")
def test_steps_never_compile_again() -> None:
    engine = fast.Engine(network("se"), Recipe())
    train(engine, batches(1))
    before = engine.compile_seconds
    with torch.compiler.set_stance("fail_on_recompile"):
        train(engine, [*batches(3, seed=7), *batches(1, size=3), *batches(1, size=2), *batches(2)])
    assert engine.compile_seconds == before > 0


@pytest.mark.usefixtures("nothing_compiled")
def test_engines_of_one_process_share_what_is_compiled_and_nothing_else() -> None:
    """Two that take turns end as each does alone, also after the one that compiled is gone."""
    first = fast.Engine(network("se"), Recipe())
    train(first, batches(6))
    state, left = everything(first), weakref.ref(first.network)
    del first
    gc.collect()
    assert left() is None
    one, other = fast.Engine(network("se"), Recipe()), fast.Engine(perturbed(network("se"), 0), Recipe())
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch in batches(6):
            train(one, [batch])
            train(other, [batch])
    assert one.compile_seconds == other.compile_seconds == 0
    assert_identical(everything(one), state)
    assert not torch.equal(weights(other), weights(one))


@pytest.mark.skipif(not has_bf16, reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize("order", [1, -1])
def test_networks_that_differ_in_their_fc_layers_share_their_convolutions(order: int) -> None:
    """Those that are compiled. Whichever of the networks compiled them, each trains as it does alone."""
    variants = [replace(SMALL, id=str(hidden), hidden=hidden) for hidden in ((), (20,), (20, 12))][::order]

    def state(variant: Architecture) -> dict[str, Tensor]:
        engine = fast_bf16.Engine(networks.build(variant, CLASSES, seed=0), Recipe())
        train(engine, batches(6))
        return everything(engine)

    forget_compiled()
    together = [state(variant) for variant in variants]
    assert fast_bf16.compiled_features.cache_info().misses == 1
    for variant, mine in zip(variants, together, strict=True):
        forget_compiled()
        assert_identical(state(variant), mine)


def test_an_engine_is_not_warm_because_another_kind_is() -> None:
    class Other(fast.Engine):
        """Such as `fast-bf16`, which compiles its convolutions."""

    kinds = [kind(network(), Recipe()) for kind in (fast.Engine, Other, fast.Engine)]
    assert kinds[0]._compiled is kinds[2]._compiled
    assert kinds[0]._compiled is not kinds[1]._compiled


def test_what_another_batch_size_compiled_is_not_taken_for_ones_own() -> None:
    """Compared with its own step, uncompiled, up to rounding: Adam divides by small moments, so to some digits only."""
    start, recipe, data = network("se"), Recipe(batch_size=2), batches(3, size=2)
    other, engine, eager = (fast.Engine(deepcopy(start), r) for r in (Recipe(), recipe, recipe))
    eager._compiled = fast.Compiled(warm=True)
    train(other, batches(1))
    train(engine, data)
    train(eager, data)
    assert engine._compiled is not other._compiled
    difference, way = (weights(eager) - weights(e) for e in (engine, reference.Engine(start, recipe)))
    assert difference.norm() < 1e-2 * way.norm()


@pytest.mark.usefixtures("nothing_compiled")
def test_warm_up_leaves_all_state_as_it_was() -> None:
    engine = fast.Engine(network(), Recipe())
    data = batches(2)
    for images, labels in batches(2, size=3):  # an engine that has moments, and has not been warmed up
        engine.step(images, labels, NoClock())
    before, generator = everything(engine), torch.get_rng_state()
    assert engine.compile_seconds == 0
    engine.warm_up(*data[0])
    assert engine.compile_seconds > 0
    assert_identical(everything(engine), before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_fresh_engine_has_the_optimizer_state_of_a_fresh_adam() -> None:
    plain, engine = reference.Engine(network(), Recipe()), fast.Engine(network(), Recipe())
    assert engine.optimizer_state() == plain.optimizer_state()
    engine.load_optimizer_state(plain.optimizer_state())
    assert engine.optimizer_state() == plain.optimizer_state()


@pytest.mark.parametrize(("first", "second"), [("reference", "fast"), ("fast", "reference"), ("fast", "fast")])
def test_a_checkpoint_of_one_engine_continues_in_the_other(first: str, second: str) -> None:
    data = batches(8)
    before = engines.get(first)(network(), Recipe())
    train(before, data[:4])
    after = engines.get(second)(network(), Recipe())
    take_over(after, before)
    assert_identical(everything(after), everything(before))
    train(after, data[4:])
    assert_close_to_float64(after, data)
    if first == second:
        train(before, data[4:])
        assert_identical(everything(after), everything(before))  # bit by bit


def with_dead_units() -> ResidualNetwork:
    """Most of the first hidden layer's units are idle for every image."""
    dead = network()
    with torch.no_grad():
        dead.fc[0].bias[:16] = -1e9  # type: ignore[index, union-attr, operator]
    return dead


def test_a_training_with_resting_units_resumes_to_the_last_bit() -> None:
    """From a checkpoint in the middle of a period; what rests is not part of it. One batch is smaller."""
    data = batches(3 * _units.PERIOD)
    data[150] = batches(1, size=3)[0]
    engine = fast.Engine(with_dead_units(), Recipe())
    train(engine, data[:100])
    assert engine._first is not None
    assert engine._first.read_parameters < engine._first.weight.numel() / 2
    resumed = fast.Engine(network(), Recipe())
    take_over(resumed, engine)
    train(engine, data[100:])
    train(resumed, data[100:])
    assert_identical(everything(resumed), everything(engine))


def test_an_engine_counts_the_parameters_that_it_reads_and_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 of 20 units of the first hidden layer are dead; which others are idle, the plain network says."""
    engine = fast.Engine(with_dead_units(), Recipe())
    every = sum(p.numel() for p in engine.network.parameters())
    first, second = (layer.weight for layer in list(engine.network.fc)[:3:2])  # type: ignore[union-attr]
    of_first = engine._first
    assert of_first is not None
    assert (engine.read_parameters, engine.updated_parameters) == (every, every)
    data = batches(6 * _units.PERIOD + 1)
    train(engine, data[:-1])
    live: list[int] = []
    plain = deepcopy(engine.network)
    for module in plain.fc:
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(lambda _module, _inputs, out: live.append(int((out > 0).any(0).sum())))
    plain(data[-1][0])
    may_be_live: list[int] = []
    told = CoarseCopy.may_be_live

    def counted(*arguments: Any) -> Tensor:
        result = told(*arguments)
        may_be_live.append(int((result | ~of_first.resting).sum()))
        return result

    monkeypatch.setattr(CoarseCopy, "may_be_live", counted)
    train(engine, data[-1:])
    assert len(live) == 2
    later = engine._unit_weights[len(engine.parameters) - 4]
    awake = int((~later.resting).sum())
    assert engine.updated_parameters == every - 16 * first.shape[1] - (20 - awake) * len(second)
    of_second, of_last = (n if 2 * n <= units else units for n, units in zip(live, (20, 12), strict=True))
    assert of_second <= 4
    assert may_be_live == [4]
    read = every - (20 - of_second) * len(second) - (12 - of_last) * CLASSES
    assert engine.read_parameters == read - (20 - 4) * first.shape[1] + first.numel() / 4


@pytest.mark.usefixtures("vectors")
def test_a_training_with_resting_units_follows_reference() -> None:
    data = batches(_units.PERIOD + 10)
    exact, plain = reference.Engine(with_dead_units().double(), Recipe()), reference.Engine(with_dead_units(), Recipe())
    engine = fast.Engine(with_dead_units(), Recipe())
    for e in (exact, plain, engine):
        train(e, data)
    assert any(unit_weight.resting.any() for unit_weight in engine._unit_weights.values())
    alive = weights(exact).abs() < 1e8  # without the biases that were set, whose rounding is larger than all else
    distance, yardstick = ((weights(e) - weights(exact))[alive].norm() for e in (engine, plain))
    assert distance <= 8 * yardstick + U * weights(exact)[alive].norm()


def test_a_training_with_resting_units_resumes_to_the_last_bit_while_the_rate_rises() -> None:
    recipe = Recipe(schedule="onecycle", warmup_steps=300)
    rates = recipe.learning_rates(1000)
    data = batches(4 * _units.PERIOD)
    engine, resumed = (fast.Engine(with_dead_units(), recipe, rates) for _ in range(2))
    train(engine, data[:200])
    assert any(unit_weight.resting.any() for unit_weight in engine._unit_weights.values())
    take_over(resumed, engine)
    train(engine, data[200:])
    train(resumed, data[200:])
    assert_identical(everything(resumed), everything(engine))


def test_a_rate_above_its_own_bound_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units rest because of that bound. No schedule breaks it; a mistake in one would."""
    engine = fast.Engine(network(), Recipe())
    train(engine, batches(1))
    monkeypatch.setattr(LearningRates, "highest_from", lambda self, step: self.lr / 2)
    with pytest.raises(RuntimeError, match=r"above 0\.0002, its bound"):
        train(engine, batches(1))


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("weight_decay", 0.01), ("amsgrad", True), ("maximize", True), ("eps", 1e-3), ("betas", (0.5, 0.9))],
)
def test_the_state_of_another_optimiser_is_refused(engine: str, name: str, value: Any) -> None:
    mine = engines.get(engine)(network(), Recipe())
    state = deepcopy(mine.optimizer_state())
    state["param_groups"][0][name] = value
    with pytest.raises(UserError, match=f"The optimiser's state has {name} {re.escape(str(value))} where the recipe"):
        mine.load_optimizer_state(state)


@pytest.mark.parametrize("mine", [True, False])
def test_a_loaded_state_does_not_change_the_implementation_of_adam(mine: bool) -> None:
    own, other = (reference.Engine(network(), Recipe()) for _ in range(2))
    for engine, fused in ((own, mine), (other, not mine)):
        engine.optimizer = torch.optim.Adam(engine.network.parameters(), lr=Recipe().lr, fused=fused)
        train(engine, batches(2))
    own.load_optimizer_state(deepcopy(other.optimizer_state()))
    assert own.optimizer.param_groups[0]["fused"] is mine
    assert_identical(everything(own), {**everything(other), **own.network.state_dict()})


class WithoutParameters(ChannelAttention):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.multiply_accumulates = 0

    def weights(self, means: Tensor) -> Tensor:
        return torch.sigmoid(means)


class WithItsOwnForward(WithoutParameters):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.amax((2, 3), keepdim=True))


class OneForAll(WithoutParameters):
    def weights(self, means: Tensor) -> Tensor:
        return super().weights(means.mean(1, keepdim=True))


class WithBuffers(WithoutParameters):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.norm = torch.nn.BatchNorm1d(channels)

    def weights(self, means: Tensor) -> Tensor:
        return super().weights(self.norm(means))


class WithDropout(WithoutParameters):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.dropout = torch.nn.Dropout(0.5)

    def weights(self, means: Tensor) -> Tensor:
        return super().weights(self.dropout(means))


class WithCounter(WithoutParameters):
    """Its count tells later only: the first two outputs are the same."""

    passes = 0

    def weights(self, means: Tensor) -> Tensor:
        self.passes += 1
        return super().weights(means) if self.passes < 1000 else means


class WithHiddenCounter(WithoutParameters):
    """Where nobody looks for it; the second output shows it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.passes = itertools.count(1)

    def weights(self, means: Tensor) -> Tensor:
        return super().weights(means) / next(self.passes)


class WithParameter(WithoutParameters):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.slope = torch.nn.Parameter(torch.ones(channels))

    def weights(self, means: Tensor) -> Tensor:
        return super().weights(self.slope * means)


class WithFrozenParameter(WithParameter):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.slope.requires_grad_(False)


class ChangesItsParameter(WithParameter):
    def weights(self, means: Tensor) -> Tensor:
        out = super().weights(means)
        self.slope.data *= 0.5
        return out


class ChangesTheMeans(WithoutParameters):
    def weights(self, means: Tensor) -> Tensor:
        return means.mul_(2).sigmoid()


def test_attention_without_parameters_trains_like_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTENTION, "plain", WithoutParameters)
    data = batches(3)
    plain, engine = (made(network("plain"), Recipe()) for made in (reference.Engine, fast.Engine))
    assert isinstance(engine, fast.Engine)
    engine._compiled = fast.Compiled(warm=True)
    torch.testing.assert_close(train(engine, data), train(plain, data))


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (WithBuffers, "has buffers, which a second forward pass would change"),
        (WithDropout, "draws random numbers, which would be others in a second forward pass"),
        (WithCounter, "changes itself in a forward pass, and would do so again in a second one"),
        (ChangesItsParameter, "changes itself in a forward pass, and would do so again in a second one"),
        (WithHiddenCounter, "gives other numbers in a second forward pass"),
        (WithFrozenParameter, "has a parameter with requires_grad=False, which would be trained like the others"),
        (ChangesTheMeans, "changes the means, which a second forward pass would change again"),
        (OneForAll, "gives weights of another shape than the means"),
        (WithItsOwnForward, "has a forward pass of its own, not only weights"),
    ],
)
def test_attention_that_a_second_forward_pass_would_not_repeat_is_refused_in_one_sentence(
    block: type[ChannelAttention], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its forward pass is computed a second time for the gradients. `reference` computes it once, and trains it."""
    monkeypatch.setitem(ATTENTION, "wrong", block)
    architecture = replace(SMALL, attention="wrong")
    assert fast.Engine.supports(architecture, Recipe()) == (
        f"--engine fast cannot train small: its attention, wrong, {fault}; take --engine reference."
    )
    assert reference.Engine.supports(architecture, Recipe()) is None
    assert train(reference.Engine(network("wrong"), Recipe()), batches(1)).isfinite().all()


@pytest.mark.parametrize("block", [WithoutParameters, WithParameter, *ATTENTION.values()])
def test_attention_is_tried_without_a_trace(block: type[ChannelAttention], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can be repeated is supported, and torch's generator is left as it was."""
    monkeypatch.setitem(ATTENTION, "right", block)
    fast.attention_fault.cache_clear()
    before = torch.get_rng_state()
    assert fast.Engine.supports(replace(SMALL, attention="right"), Recipe()) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_small_hidden_layers_are_updated_with_the_other_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by default; the same training up to rounding."""
    monkeypatch.setattr(fast, "WORTH_RESTING", _units.WORTH_RESTING)
    data = batches(5)
    engine = fast.Engine(network(), Recipe())
    engine._compiled = fast.Compiled(warm=True)
    assert not engine._unit_weights
    train(engine, data)
    assert_close_to_float64(engine, data)


def test_state_has_the_form_of_torch_adam(trained: fast.Engine) -> None:
    plain = reference.Engine(network(), Recipe())
    train(plain, batches(1))
    mine, its = trained.optimizer_state(), plain.optimizer_state()
    assert mine["param_groups"] == its["param_groups"]
    assert mine["state"].keys() == its["state"].keys()
    for i, state in its["state"].items():
        assert mine["state"][i].keys() == state.keys()
        for name, tensor in state.items():
            assert mine["state"][i][name].shape == tensor.shape
            assert mine["state"][i][name].is_contiguous()
            assert mine["state"][i][name].dtype == tensor.dtype


def test_a_state_that_was_handed_out_does_not_change(trained: fast.Engine) -> None:
    state = trained.optimizer_state()
    before = deepcopy(state)
    train(trained, batches(1))
    assert_identical(state["state"][0], before["state"][0])


def test_taking_a_network_over_keeps_the_values_of_its_weights() -> None:
    engine = fast.Engine(network(), Recipe())
    assert_identical(engine.network.state_dict(), network().state_dict())


@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_evaluation_gives_the_logits_of_the_plain_network(
    trained: fast.Engine, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are runs of one network; each layer's sums, of at most 148 terms (the stem), are rounded."""
    monkeypatch.setattr(fast, "EVALUATED_AT_ONCE", at_once)
    plain = network()
    plain.load_state_dict(trained.network.state_dict())
    images = random(6, 3, 32, 32)
    expected = plain.double().eval()(images.double())
    difference = (trained.logits(images).double() - expected).abs().max()
    depth = 8  # layers with weights on the longest path
    assert difference <= SLACK * depth * 150 * U * expected.abs().max()
    assert trained.network.training


def test_images_are_evaluated_each_for_itself_on_a_map_of_one_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a view and a copy of the feature map look alike."""
    monkeypatch.setattr(fast, "EVALUATED_AT_ONCE", 1)
    one_pixel = replace(SMALL, strides=(4, 4))
    assert one_pixel.map_size == 1
    engine, images = fast.Engine(networks.build(one_pixel, CLASSES, seed=0), Recipe()), random(3, 3, 32, 32)
    together = engine.logits(images)
    assert not torch.equal(together[0], together[2])
    for row, image in zip(together, images, strict=True):
        torch.testing.assert_close(row, engine.logits(image[None])[0])


def uncompiled() -> fast.Engine:
    """An engine that compiles nothing but its convolutions."""
    engine = fast.Engine(network(), Recipe())
    engine._compiled = fast.Compiled()
    return engine


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exc.CppCompileError(["g++"], "g++: fatal error: Killed signal terminated program cc1plus"), "Killed signal"),
        (OSError(28, "No space left on device"), "No space left on device; mend that"),
    ],
    ids=["memory", "disk"],
)
@pytest.mark.parametrize("inner", [False, True])
def test_a_compiler_that_fails_after_all_is_one_sentence(
    error: Exception, said: str, inner: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a small function did not show: here the disk and the memory are used up while the engine compiles."""
    monkeypatch.delenv("CXX", raising=False)

    def fails(*_: Any, **__: Any) -> None:
        raise exc.InductorError(error, None) if inner else error

    monkeypatch.setattr(codecache.CppCodeCache, "load", fails)
    monkeypatch.setattr(_layer, "library", _cpp.library.__wrapped__)
    with pytest.raises(UserError, match=rf"{said}.*, or take --engine reference"):
        uncompiled().warm_up(*batches(1)[0])
    with pytest.raises(UserError, match=rf"{said}.*, or take --engine reference"):
        uncompiled().step(*batches(1, size=3)[0], NoClock())  # is not warmed up


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for a compiler is a shell script")
def test_a_compiler_that_cannot_compile_the_convolutions_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that compiles all that Inductor writes; such as a compiler without GCC's vector types."""
    script = tmp_path / "g++"
    script.write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in *.cpp) if grep -q vector_size "$word"; then\n'
        "echo 'layer.cpp:28:15: error: no such attribute' >&2; exit 1; fi;; esac; done\n"
        f'exec {shutil.which("g++")} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_layer, "library", _cpp.library.__wrapped__)
    with inductor_config.patch({"cpp.cxx": (str(script),)}), pytest.raises(UserError) as raised:
        uncompiled().warm_up(*batches(1)[0])
    assert str(raised.value) == (
        f"The C++ compiler {script} cannot compile what the engines fast and fast-bf16 need: layer.cpp:28:15: error: "
        "no such attribute; repair it, name another one in CXX, or take --engine reference, which runs without."
    )


def test_a_fault_of_ones_own_while_compiling_is_not_blamed_on_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(_layer, "library", fails)
    with pytest.raises(ValueError, match="a fault"):
        uncompiled().warm_up(*batches(1)[0])


def test_what_cannot_be_compiled_is_an_error() -> None:
    def breaks(x: Tensor) -> Tensor:
        return x + len(open(os.devnull).read()) if x.sum() > 0 else x

    with pytest.raises(Exception, match=r"(?i)graph break|data-dependent|unsupported"):
        fast.compiled(breaks)(torch.ones(2))


def test_bf16_asks_for_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(UserError, match="bfloat16 instructions"):
        fast_bf16.Engine(network(), Recipe())


@pytest.mark.skipif(not has_bf16, reason="this CPU has no bfloat16 instructions")
def test_bf16_rounds_the_convolutions_and_nothing_else() -> None:
    """The state stays float32, and the first loss is off by the rounding to 8 bits, though not by nothing.

    5 layers with convolutions are on the longest path; in each, activations and weights are rounded.
    """
    data = batches(2)
    engine, plain = fast_bf16.Engine(network(), Recipe()), fast.Engine(network(), Recipe())
    losses, expected = train(engine, data), train(plain, data)
    assert {tensor.dtype for tensor in everything(engine).values()} == {torch.float32, torch.int64}
    assert losses.dtype == torch.float32
    assert 0 < abs(losses[0] - expected[0]) <= 2 * 5 * 2.0**-8 * expected[0]
