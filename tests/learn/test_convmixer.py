"""The network by matrix products against the stock modules that its parameters belong to."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cmxlib.learn import convmixer
from cmxlib.learn.convmixer import ConvMixer
from cmxlib.learn.engine import products


def network(dtype=torch.float64, **arguments):
    torch.manual_seed(0)
    model = ConvMixer(**{"dim": 16, "depth": 2, "kernel_size": 5, "patch_size": 4, **arguments}).to(dtype)
    for module in model.modules():  # statistics and scales that a wrong order of layers would show
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, mean=1, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    return model


def stock(model):
    """The same modules, run one after the other as torch.nn.Sequential does."""
    return nn.Sequential(*copy.deepcopy(model))


def images(size=32, n=5, dtype=torch.float64):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


CASES = [
    {"patch_size": 4},
    {"patch_size": 2},
    {"patch_size": 2, "kernel_size": 8},
    {"patch_size": 8, "kernel_size": 9},
    {"patch_size": 16, "kernel_size": 3},
    {"depth": 0},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_same_logits_gradients_and_statistics(case, training):
    ours = network(**case).train(training)
    theirs = stock(ours).train(training)
    x = images()
    labels = torch.arange(5)
    for model in (ours, theirs):
        F.cross_entropy(model(x), labels).backward()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
    for name, mine in ours.named_parameters():
        torch.testing.assert_close(mine.grad, theirs.get_parameter(name).grad, rtol=1e-8, atol=1e-10)
    for name, mine in ours.named_buffers():
        torch.testing.assert_close(mine, theirs.get_buffer(name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_float32_to_rounding(patch_size):
    model = network(torch.float32, patch_size=patch_size).eval()
    x = images(dtype=torch.float32)
    torch.testing.assert_close(model(x), stock(model)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_bfloat16_is_as_near_to_float64_as_the_stock_modules_are(patch_size):
    def gradient(model, x, autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(x)
            loss = F.cross_entropy(output, torch.arange(5))
        loss.backward()
        return torch.cat([p.grad.flatten().double() for p in model.parameters()])

    exact = gradient(stock(network(patch_size=patch_size)), images(), False)
    model = network(torch.float32, patch_size=patch_size)
    reference = gradient(stock(model), images(dtype=torch.float32), True)
    ours = gradient(model, images(dtype=torch.float32), True)
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert (ours - exact).norm() < 1.5 * (reference - exact).norm()


def test_memory_format_does_not_matter():
    model = network().eval()
    x = images()
    assert torch.equal(model(x), model(x.contiguous(memory_format=torch.channels_last)))


def test_keys_are_those_of_the_authors():
    keys = ConvMixer(16, 1).state_dict().keys()
    assert {"0.weight", "2.running_mean", "3.0.fn.0.weight", "3.0.fn.2.weight", "3.1.weight", "6.bias"} <= set(keys)


def test_copies_and_state_dicts():
    model = network().eval()
    twin = ConvMixer(16, 2, 5, 4).double().eval()
    twin.load_state_dict(model.state_dict())
    x = images()
    assert torch.equal(twin(x), model(x)) and torch.equal(copy.deepcopy(model)(x), model(x))


def test_a_slice_is_a_sequence_of_layers():
    model, x = ConvMixer(8, 2, 3, 4).eval(), torch.rand(2, 3, 8, 8)
    assert type(model[:-3]) is torch.nn.Sequential and model[0] is model[:3][0]
    assert torch.allclose(model[-3:](model[:-3](x)), model(x), atol=1e-5)


# -- where the layers have to run one by one -------------------------------------------------------------------------


def is_quick(monkeypatch, model, x):
    """Whether the products computed model(x)."""
    called = []
    monkeypatch.setattr(convmixer, "products", lambda *arguments: called.append(1) or products(*arguments))
    model(x)
    return bool(called)


def changed(name, **arguments):
    """A ConvMixer with one change, by name; every one of them changes what its layers compute, or who sees it."""
    model = network(**arguments)
    residual, pointwise, _, norm = model[3]
    depthwise = residual.fn[0]
    layers = {
        "ReLU": (1, nn.ReLU()),
        "ReLU in a block": ("3.2", nn.ReLU()),
        "tanh GELU": ("3.0.fn.1", nn.GELU(approximate="tanh")),
        "GroupNorm": (2, nn.GroupNorm(4, 16)),
        "InstanceNorm": ("4.3", nn.InstanceNorm2d(16)),
        "no norm": ("4.3", nn.Identity()),
        "max pooling": (5, nn.AdaptiveMaxPool2d((1, 1))),
        "finer pooling": (5, nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.AvgPool2d(2))),
        "dilation": ("3.0.fn.0", nn.Conv2d(16, 16, 5, groups=16, padding="same", dilation=2)),
        "circular": ("3.0.fn.0", nn.Conv2d(16, 16, 5, groups=16, padding="same", padding_mode="circular")),
        "another kernel": ("4.0.fn.0", nn.Conv2d(16, 16, 3, groups=16, padding="same")),
        "oblong kernel": ("4.0.fn.0", nn.Conv2d(16, 16, (3, 5), groups=16, padding="same")),
        "groups": ("3.1", nn.Conv2d(16, 16, 1, groups=2)),
        "embedding padding": (0, nn.Conv2d(3, 16, 4, stride=4, padding=2)),
        "embedding overlap": (0, nn.Conv2d(3, 16, 4, stride=2)),
        "embedding without bias": (0, nn.Conv2d(3, 16, 4, stride=4, bias=False)),
        "classifier without bias": (7, nn.Linear(16, 10, bias=False)),
        "another layer": (6, nn.Sequential(nn.Flatten(), nn.Dropout(0.0))),
    }
    if name in layers:
        place, layer = layers[name]
        model.set_submodule(str(place), layer.double())
    elif name == "bias set to None":
        pointwise.bias = None
    elif name == "attribute":
        depthwise.dilation, depthwise._reversed_padding_repeated_twice = (2, 2), [4, 4, 4, 4]
    elif name == "forward hook":
        norm.register_forward_hook(lambda layer, inputs, output: 2 * output)
    elif name == "forward pre-hook":
        pointwise.register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1,))
    elif name == "backward hook":
        residual.register_full_backward_hook(lambda layer, inputs, outputs: (2 * inputs[0],))
    elif name == "parametrization":
        nn.utils.parametrizations.weight_norm(pointwise)
        pointwise.parametrizations.weight.original0.data *= 2
    elif name == "forward of its own":
        norm.forward = lambda x: x
    elif name == "another block":
        model[4].append(nn.Identity())
    elif name == "residual of its own":
        residual.forward = lambda x: residual.fn(x)
    return model


CHANGES = [
    *("ReLU", "ReLU in a block", "tanh GELU", "GroupNorm", "InstanceNorm", "no norm", "max pooling", "finer pooling"),
    *("dilation", "circular", "another kernel", "oblong kernel", "groups", "embedding padding", "embedding overlap"),
    *("embedding without bias", "classifier without bias", "another layer", "bias set to None", "attribute"),
    *("forward hook", "forward pre-hook", "backward hook", "parametrization", "forward of its own", "another block"),
    "residual of its own",
]


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_network_is_what_its_layers_are(monkeypatch, name):
    model, x = changed(name), images(n=2)
    assert not is_quick(monkeypatch, model, x)
    layers = nn.Sequential(*model)  # the same modules: a copy's own forward would still refer to these
    statistics = copy.deepcopy(model.state_dict())
    found = []
    for net in (model, layers):
        model.load_state_dict(statistics)
        model.zero_grad()
        out = net(x)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 20 and all(map(torch.equal, *found))


def test_changes_are_noticed_at_any_time_and_taken_back(monkeypatch):
    model, x = network().eval(), images(n=2)
    assert is_quick(monkeypatch, model, x)
    hook = model[4].register_forward_hook(lambda *_: None)
    assert not is_quick(monkeypatch, model, x)
    hook.remove()
    assert is_quick(monkeypatch, model, x)
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not is_quick(monkeypatch, model, x)
    finally:
        hook.remove()
    gelu, model[1] = model[1], nn.ReLU()
    assert not is_quick(monkeypatch, model, x)
    model[1] = gelu
    assert is_quick(monkeypatch, model, x)


def test_the_products_stay_where_they_hold(monkeypatch):
    x = images(n=2)
    hooked = network()
    hooked.register_forward_hook(lambda *_: None)  # of the whole network, which any way of computing calls
    fewer = network()
    fewer[7] = nn.Linear(16, 5).double()
    frozen = network().requires_grad_(False)
    for model in (hooked, fewer, frozen, network().eval(), copy.deepcopy(network())):
        assert is_quick(monkeypatch, model, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_quick(monkeypatch, network(torch.float32), x.float())
        assert not is_quick(monkeypatch, network(torch.float32), x.to(torch.bfloat16))
    model = network().eval()
    with torch.inference_mode():
        found = model(x)
    assert torch.equal(found, model(x).detach())


def test_odd_inputs_are_treated_as_the_layers_treat_them():
    model = network(torch.float32).eval()
    torch.testing.assert_close(model(torch.ones(0, 3, 32, 32)), stock(model)(torch.ones(0, 3, 32, 32)))
    for bad in (torch.ones(2, 3, 8, 2), torch.ones(2, 4, 32, 32), torch.ones(2, 3, 30, 32)):
        with pytest.raises(ValueError, match=r"filled by the network's patches of 4|takes images of 3 channels"):
            model(bad)
    with pytest.raises(ValueError, match=r"must have the shape \(N, C, H, W\)"):
        model(torch.ones(3))
    with pytest.raises(TypeError, match="images must be a torch tensor"):
        model([1])


def test_bfloat16_as_near_to_float64_as_the_stock_modules_are_without_autocast():
    model = network(torch.bfloat16).eval()
    x = images(dtype=torch.bfloat16)
    exact = stock(model).double()(x.double())
    ours, theirs = ((net(x).double() - exact).norm() for net in (model, stock(model)))
    assert ours < 1.5 * theirs


# -- others that look at the network -----------------------------------------------------------------------------------


def n_convolutions(graph):
    return sum("conv" in str(node.target) for node in graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("training", [True, False])
def test_exported_with_any_batch_size(training):
    model = network(torch.float32).train(training)
    x = images(dtype=torch.float32)
    exported = torch.export.export(
        copy.deepcopy(model), (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=64)},)
    )
    assert n_convolutions(exported.graph) == 5
    for n in (2, 5, 9):
        y = images(n=n, dtype=torch.float32)
        expected = copy.deepcopy(model)(y)
        torch.testing.assert_close(exported.module()(y), expected, rtol=1e-4, atol=1e-4)


def test_traced_with_any_batch_size():
    model = network(torch.float32).eval()
    traced = torch.jit.trace(model, images(dtype=torch.float32))
    assert str(traced.inlined_graph).count("aten::_convolution") == 5
    y = images(n=7, dtype=torch.float32)
    torch.testing.assert_close(traced(y), model(y), rtol=1e-4, atol=1e-5)


def test_compiled_in_one_graph():
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = network(torch.float32).eval()
    compiled = torch.compile(model, backend=keep, fullgraph=True, dynamic=True)
    for n in (3, 6):
        y = images(n=n, dtype=torch.float32)
        torch.testing.assert_close(compiled(y), model(y), rtol=1e-4, atol=1e-5)
    assert n_convolutions(graphs[0].graph) == 5
    torch._dynamo.reset()


def test_the_other_tracers_see_convolutions():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils.flop_counter import FlopCounterMode

    model, x = network(torch.float32).eval(), images(dtype=torch.float32)
    assert n_convolutions(torch.fx.symbolic_trace(model).graph) == 0  # its convolutions are modules
    assert sum(node.op == "call_module" for node in torch.fx.symbolic_trace(model).graph.nodes) > 5
    assert n_convolutions(make_fx(model)(x).graph) == 5
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert model(mode.from_tensor(x)).shape == (5, 10)
    with FlopCounterMode(display=False) as ours, torch.no_grad():
        model(x)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        stock(model)(x)
    assert ours.get_total_flops() == theirs.get_total_flops() > 0


def test_transforms_of_functions_work():
    model, x = network().eval(), images(n=3)
    parameters = dict(model.named_parameters())

    def loss(parameters, image):
        return torch.func.functional_call(model, parameters, image[None]).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(3):
        expected = torch.autograd.grad(stock_loss(model, x[i]), list(parameters.values()))
        for mine, theirs in zip(each.values(), expected, strict=True):
            torch.testing.assert_close(mine[i], theirs, rtol=1e-8, atol=1e-8)


def stock_loss(model, image):
    return nn.Sequential(*model)(image[None]).square().sum()
