"""ONNX models: what encrypt-model makes of an export is the export of the encrypted model, and what is refused."""

import os

import numpy as np
import pytest
import torch

from cmxlib import ConvMixer, PatchCipher, SecretKey, encrypt_model
from cmxlib.files import graphs

from .test_models import Flat

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

KEY = ("--key", "my.key")
NORM = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
USUAL = (*KEY, "--norm", "imagenet")
IMAGES = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def export(model, path):
    """By the older exporter, which is quicker and asks for no more than onnx."""
    torch.onnx.export(model, (torch.zeros(2, 3, 16, 16),), path, dynamo=False)


def outputs(path, images):
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def normalised(images):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in NORM.values())
    return (images / 255 - mean) / std


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_encrypting_an_export_is_exporting_the_encrypted(key, cmx):
    torch.manual_seed(0)
    model, cipher = ConvMixer(dim=16, depth=2, kernel_size=3, patch_size=4).eval(), PatchCipher(key, 4)
    locked = encrypt_model(model, cipher, **NORM)
    export(model, "a.onnx")
    export(locked, "expected.onnx")
    assert cmx("encrypt-model", "a.onnx", "b.onnx", *USUAL)[0] == 0
    found, expected = (onnx.load(name) for name in ("b.onnx", "expected.onnx"))
    assert [i.name for i in found.graph.initializer] == [i.name for i in expected.graph.initializer]
    for one, two in zip(found.graph.initializer, expected.graph.initializer, strict=True):
        assert np.array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(two)), one.name
    assert list(found.graph.node) == list(expected.graph.node)
    plain = outputs("a.onnx", normalised(IMAGES))
    with torch.no_grad():
        assert np.abs(plain - model(normalised(IMAGES)).numpy()).max() < 1e-5
        opened = locked(normalised(cipher.encrypt(IMAGES))).numpy()
    served = outputs("b.onnx", normalised(cipher.encrypt(IMAGES)))
    assert np.abs(served - opened).max() < 1e-5 and np.abs(served - plain).max() < 1e-5
    status, said, _ = cmx("verify", "a.onnx", "b.onnx", *KEY, "--json")
    assert status == 0 and said["compared"] == "outputs" and said["changed layers"] == ["0"]
    export(ConvMixer(dim=16, depth=2, kernel_size=3, patch_size=4, num_classes=5).eval(), "d.onnx")
    assert "d.onnx and b.onnx give (5,) and (10,) values" in cmx("verify", "d.onnx", "b.onnx", *KEY)[2]
    assert cmx("decrypt-model", "b.onnx", "c.onnx", *KEY)[0] == 0
    assert np.abs(outputs("c.onnx", normalised(IMAGES)) - plain).max() < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("order", ["chw", "hwc"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("axes", [{}, {"x": {0: "n", 2: "h", 3: "w"}}])
def test_a_linear_on_flat_patches_is_found_with_its_order(key, cmx, order, norm, axes):
    torch.manual_seed(0)
    model, cipher = Flat(order, norm).eval(), PatchCipher(key, 4, steps=("shuffle",) if norm else ("shuffle", "flip"))
    grey = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    for name, each in (("a", model), ("expected", encrypt_model(model, cipher, **grey))):
        how = {"input_names": ["x"], "dynamic_axes": axes, "dynamo": False}
        torch.onnx.export(each, (torch.zeros(2, 3, 16, 16),), f"{name}.onnx", **how)
    told = ("--mean", *grey["mean"], "--std", *grey["std"], "--steps", ",".join(cipher.steps))
    assert "leave out --order" in cmx("encrypt-model", "a.onnx", "b.onnx", *KEY, *told, "--order",
                                      "hwc" if order == "chw" else "chw")[2]  # fmt: skip
    assert cmx("encrypt-model", "a.onnx", "b.onnx", *KEY, *told)[0] == 0
    found, expected = (onnx.load(name).graph for name in ("b.onnx", "expected.onnx"))
    for one, two in zip(found.initializer, expected.initializer, strict=True):
        assert np.array_equal(*map(onnx.numpy_helper.to_array, (one, two))), one.name
    status, said, _ = cmx("verify", "a.onnx", "b.onnx", *KEY, "--json")
    assert status == 0 and said["changed layers"] == ["embed", *(["norm"] if norm else [])]
    assert said["without encryption"] > 100 * said["largest difference"]
    assert cmx("decrypt-model", "b.onnx", "c.onnx", *KEY)[0] == 0
    assert np.abs(outputs("c.onnx", IMAGES.float()) - outputs("a.onnx", IMAGES.float())).max() < 1e-4


def node(op="Conv", inputs=("x", "w", "b"), **attributes):
    usual = {"strides": [4, 4], "name": "stem"} if op == "Conv" else {}
    return onnx.helper.make_node(op, list(inputs), ["y"], **(usual | attributes))


def tensor(name, *shape, scale=1.0):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32) * scale
    return onnx.numpy_helper.from_array(values, name)


WEIGHTS = (tensor("w", 8, 3, 4, 4), tensor("b", 8))


def model(nodes=None, weights=WEIGHTS, shape=("n", 3, "h", "w"), opset=17, outputs=("y",)):
    make = onnx.helper.make_tensor_value_info
    images = make("x", onnx.TensorProto.FLOAT, shape)
    found = [make(name, onnx.TensorProto.FLOAT, [None] * 4) for name in outputs]
    graph = onnx.helper.make_graph(nodes or [node()], "g", [images], found, list(weights))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def relu(of, out):
    return onnx.helper.make_node("Relu", [of], [out])


def channels_last(*perm, shape=(2, 8, 12, 3)):
    """As TensorFlow and JAX export: images (N, H, W, 3), brought into the form that a Conv takes."""
    turn = onnx.helper.make_node("Transpose", ["x"], ["t"], perm=perm)
    return model([turn, node(inputs=("t", "w", "b"))], shape=shape)


TAKEN = {
    "as it is": model(),
    "without a bias": model([node(inputs=("x", "w"))], WEIGHTS[:1]),
    "a bias that another layer has, too": model(
        [node(), onnx.helper.make_node("Conv", ["y", "v", "b"], ["z"])],
        (*WEIGHTS, tensor("v", 8, 8, 1, 1)),
        outputs=("z",),
    ),
    "a size and a number of its own": model(shape=(4, 3, 8, 12)),
    "images whose channels come last": channels_last(0, 3, 1, 2),
    "channels last, of any size": channels_last(0, 3, 1, 2, shape=("n", "h", "w", 3)),
    "cast to the type that it has": model(
        [
            onnx.helper.make_node("Cast", ["x"], ["t"], to=1),
            onnx.helper.make_node("Identity", ["t"], ["u"]),
            node(inputs=("u", "w", "b")),
        ]
    ),
    "reading the shape": model([node(), onnx.helper.make_node("Shape", ["x"], ["s"])]),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(key, cmx, name):
    onnx.save(TAKEN[name], "a.onnx")
    assert cmx("encrypt-model", "a.onnx", "b.onnx", *USUAL)[0] == 0
    status, said, _ = cmx("verify", "a.onnx", "b.onnx", *KEY, "--json")
    assert status == 0 and said["without encryption"] > 0.1
    SecretKey.for_experiment(9).save("other.key")
    assert "was encrypted with the key" in cmx("decrypt-model", "b.onnx", "c.onnx", "--key", "other.key")[2]
    assert "is encrypted already" in cmx("encrypt-model", "b.onnx", "c.onnx", *USUAL)[2]


def test_a_graph_that_takes_one_size_without_saying_so_is_compared_on_images_that_are_given(key, cmx):
    shape = onnx.numpy_helper.from_array(np.array([-1, 8, 6]), "shape")
    cut = onnx.helper.make_node("Reshape", ["y", "shape"], ["z"])
    onnx.save(model([node(), cut], (*WEIGHTS, shape), outputs=("z",)), "a.onnx")
    assert cmx("encrypt-model", "a.onnx", "b.onnx", *USUAL)[0] == 0
    assert "give some of a size that it takes, with --images" in cmx("verify", "a.onnx", "b.onnx", *KEY)[2]
    np.save("images.npy", IMAGES[:, :, :8, :12].numpy())
    assert cmx("verify", "a.onnx", "b.onnx", *KEY, "--images", "images.npy")[0] == 0


@pytest.mark.parametrize("names", [("model.onnx", "model.onnx.data"), ("other.onnx", "other.onnx.data")])
def test_external_data_of_the_input_is_never_an_output(key, cmx, names):
    """A model that was given another name reads its data from where they were."""
    model_name, data = names
    onnx.save_model(model(), model_name, save_as_external_data=True, location=data, size_threshold=0)
    os.rename(model_name, "plain.onnx")
    before = open(data, "rb").read()
    for force in ((), ("--force",)):
        status, _, err = cmx("encrypt-model", "plain.onnx", model_name, *USUAL, *force)
        assert status == 1 and f"{data} is the input itself: name another output" in err
    assert open(data, "rb").read() == before and not os.path.exists(model_name)


def test_external_data_goes_along_and_its_plain_embedding_does_not(key, cmx):
    os.mkdir("plain")
    onnx.save_model(model(), "plain/a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    open("b.onnx.data", "w").close()
    assert "b.onnx.data exists already: give --force" in cmx("encrypt-model", "plain/a.onnx", "b.onnx", *USUAL)[2]
    os.unlink("b.onnx.data")
    plain = onnx.numpy_helper.to_array(WEIGHTS[0]).tobytes()
    with open("plain/a.bin", "ab") as file:
        file.write(plain)  # of an earlier export, which nothing reads
    assert cmx("encrypt-model", "plain/a.onnx", "b.onnx", *USUAL)[0] == 0
    assert sorted(os.listdir()) == ["b.onnx", "b.onnx.data", "my.key", "plain"]
    assert plain in open("plain/a.bin", "rb").read()
    assert not [name for name in ("b.onnx", "b.onnx.data") if plain in open(name, "rb").read()]
    assert cmx("verify", "plain/a.onnx", "b.onnx", *KEY)[0] == 0
    assert cmx("decrypt-model", "b.onnx", "c.onnx", *KEY)[0] == 0


def far(place, **more):
    found = model()
    weight = found.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, "length": "1536", **more}.items():
        weight.external_data.add(key=key, value=value)
    return found


def numbers(tensor):
    return onnx.numpy_helper.to_array(tensor).flatten()


def endless():
    """A Reshape, in front of a MatMul, to a shape that a loop of 2^62 turns gives."""
    make, info, kinds = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    ends = [info("i", kinds.INT64, []), info("c", kinds.BOOL, []), info("s", kinds.INT64, [2])]
    inside = [info("c2", kinds.BOOL, []), info("s2", kinds.INT64, [2])]
    turn = [make("Identity", ["c"], ["c2"]), make("Identity", ["s"], ["s2"])]
    held = {"turns": np.int64(2**62), "on": np.bool_(True), "shape": np.array([-1, 48])}
    held |= {"w": np.zeros((48, 8), "f"), "b": np.zeros(8, "f")}
    nodes = [
        make("Loop", ["turns", "on", "shape"], ["found"], body=onnx.helper.make_graph(turn, "turn", ends, inside)),
        make("Reshape", ["x", "found"], ["flat"]),
        make("MatMul", ["flat", "w"], ["p"]),
        make("Add", ["p", "b"], ["y"]),
    ]
    return model(nodes, [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()])


def short():
    found = model()
    found.graph.initializer[0].dims[0] = 2**40
    return found


def given_weight():
    found = model()
    found.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [8, 3, 4, 4]))
    return found


REFUSED = {
    "turned images": (channels_last(0, 3, 2, 1), "only a Transpose to (N, 3, H, W) with a Conv behind it can"),
    "channels last without a Transpose": (model(shape=("n", 8, 8, 3)), "Conv stem takes the images (N, H, W, 3)"),
    "preprocessing": (
        model([onnx.helper.make_node("Div", ["x", "b"], ["n"]), node(inputs=("n", "w"))]),
        "can take the cipher in",
    ),
    "cast to whole numbers": (
        model([onnx.helper.make_node("Cast", ["x"], ["t"], to=2), node(inputs=("t", "w", "b"))]),
        "can take the cipher in",
    ),
    "two branches": (model([node(), relu("x", "z")]), "go into 2 nodes (Conv stem, Relu): one layer alone"),
    "overlap": (model([node(strides=[2, 2])]), "its kernel of 4 x 4 moves by 2: patches must not overlap"),
    "padding": (model([node(pads=[1, 1, 1, 1])]), "it has padding, dilation or groups"),
    "padding, told by a word": (model([node(auto_pad="SAME_UPPER")]), "it has padding, dilation or groups"),
    "not square": (model([node(strides=[4, 2])], (tensor("w", 8, 3, 4, 2), WEIGHTS[1])), "is not square"),
    "computed weight": (model([relu("w", "v"), node(inputs=("x", "v", "b"))]), "comes out of a node (Relu)"),
    "weight in a node": (
        model(
            [onnx.helper.make_node("Constant", [], ["w"], value=tensor("w", 8, 3, 4, 4)), node()], weights=WEIGHTS[1:]
        ),
        "comes out of a node (Constant), and only an initializer can be exchanged",
    ),
    "weight from outside": (given_weight(), "export the model with keep_initializers_as_inputs=False"),
    "shared weight": (model([node(), relu("w", "v")]), "its weight is used elsewhere, too"),
    "a copy": (model(weights=(*WEIGHTS, tensor("ema", 8, 3, 4, 4))), "could give the key away"),
    "a copy, flat among others": (
        model(weights=(*WEIGHTS, tensor("v", 8), onnx.numpy_helper.from_array(np.tile(numbers(WEIGHTS[0]), 2), "two"))),
        "also holds two of",
    ),
    "a loop that makes the patches' shape": (endless(), "but not as flat patches in a known order"),
    "no images": (model(shape=("n", 48)), "has 0 inputs of images"),
    "four channels": (model(shape=("n", 4, "h", "w"), weights=(tensor("w", 8, 4, 4, 4), WEIGHTS[1])), "has 0 inputs"),
    "images given out": (model(outputs=("y", "x")), "one layer alone must take them"),
    "huge shape": (short(), "is no valid ONNX model"),
    "outside": (far("../secret.bin"), "is no valid ONNX model"),
    "absolute": (far(os.path.abspath(__file__)), "is no valid ONNX model"),
    "in a folder below": (far("sub/w.bin"), "is no valid ONNX model"),
    "missing": (far("w.bin"), "is not beside it: put its file w.bin there"),
    "cut off": (far("short.bin"), "is cut off"),
    "before its beginning": (far("long.bin", offset="-8"), "is no valid ONNX model"),
    "no number": (far("long.bin", offset="x"), "is no valid ONNX model"),
    "a link": (far("link.bin"), "is no valid ONNX model"),
    "not finite": (model(weights=(tensor("w", 8, 3, 4, 4, scale=np.inf), WEIGHTS[1])), "not finite"),
    "nothing": (b"", "ONNX model"),
    "text": (b"no model", "is no ONNX model, or is damaged"),
    "half": (model().SerializeToString()[:900], "ONNX model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(key, cmx, name, tmp_path):
    content, said = REFUSED[name]
    os.makedirs("models/sub")
    for path in ("secret.bin", "models/short.bin", "models/long.bin", "models/sub/w.bin"):
        with open(path, "wb") as file:
            file.write(bytes(9 if "short" in path else 2000))
    os.symlink(tmp_path / "secret.bin", "models/link.bin")
    with open("models/a.onnx", "wb") as file:
        file.write(content if isinstance(content, bytes) else content.SerializeToString())
    status, _, err = cmx("encrypt-model", "models/a.onnx", "b.onnx", *USUAL)
    assert status == 1 and said in err and not os.path.exists("b.onnx") and not os.path.exists("b.onnx.data")


def test_a_graph_without_an_end_is_ended(key, cmx, monkeypatch):
    """A loop of 2^62 turns behind the embedding, which no signal would end."""
    help, kinds = onnx.helper, onnx.TensorProto
    turn = help.make_graph(
        [help.make_node("Identity", ["c"], ["c2"]), help.make_node("Identity", ["x"], ["y"])],
        "turn",
        [
            help.make_tensor_value_info("i", kinds.INT64, []),
            help.make_tensor_value_info("c", kinds.BOOL, []),
            help.make_tensor_value_info("x", kinds.FLOAT, None),
        ],
        [help.make_tensor_value_info("c2", kinds.BOOL, []), help.make_tensor_value_info("y", kinds.FLOAT, None)],
    )
    held = {"w": np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype("f"), "b": np.zeros(8, "f")}
    held |= {"turns": np.int64(2**62), "go on": np.bool_(True)}
    graph = help.make_graph(
        [
            help.make_node("Conv", ["images", "w", "b"], ["e"], kernel_shape=[4, 4], strides=[4, 4]),
            help.make_node("Loop", ["turns", "go on", "e"], ["l"], body=turn),
            help.make_node("GlobalAveragePool", ["l"], ["p"]),
            help.make_node("Flatten", ["p"], ["logits"]),
        ],
        "endless",
        [help.make_tensor_value_info("images", kinds.FLOAT, ["n", 3, 16, 16])],
        [help.make_tensor_value_info("logits", kinds.FLOAT, ["n", 8])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    made = help.make_model(graph, opset_imports=[help.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.save(made, "a.onnx")
    assert cmx("encrypt-model", "a.onnx", "b.onnx", *USUAL)[0] == 0
    monkeypatch.setattr(graphs, "LONGEST", 0.05)
    status, _, said = cmx("verify", "a.onnx", "b.onnx", *KEY)
    assert status == 1 and "was not done with 8 images in 0.05 seconds: it may have no end" in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_record_that_was_altered_is_told(key, cmx):
    export(ConvMixer(8, 1, 3, 4).eval(), "a.onnx")
    assert cmx("encrypt-model", "a.onnx", "b.onnx", *USUAL)[0] == 0
    made = onnx.load("b.onnx")
    (record,) = made.metadata_props
    record.value = record.value.replace("0.485", "0.185")
    onnx.save(made, "b.onnx")
    assert "has a damaged record of its cipher" in cmx("decrypt-model", "b.onnx", "c.onnx", *KEY)[2]


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_name_that_is_no_utf8_is_told(key, cmx):
    export(ConvMixer(8, 1, 3, 4).eval(), "a.onnx")
    name = os.fsdecode(b"o\xe9.onnx")
    assert "give it letters that are UTF-8" in cmx("encrypt-model", "a.onnx", name, *USUAL)[2]
    assert not os.path.exists(name)
    os.rename("a.onnx", name)
    assert "give it letters that are UTF-8" in cmx("encrypt-model", name, "b.onnx", *USUAL)[2]
