"""ONNX models: the first layer on the images is exchanged, all else stays: a Conv, or a MatMul and the Add behind it on
flat patches, which Reshape and Transpose alone make of the images, with a LayerNormalization in front or without.

Images come in as (N, 3, H, W); or as (N, H, W, 3), as TensorFlow and JAX have them, where a Transpose brings them into
that form.

Tensors may stand in files beside the model, where ONNX calls them external data. They are read only from the model's
own folder. Of each, what the model takes goes with the new one, NAME.onnx.data, in which the embedding is exchanged as
well.
"""

import itertools
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ..lock.probe import patch_order
from ..paths import need, not_itself, out_of_memory, regular, replacing, sweep, write_bytes
from .checkpoints import Values
from .record import MODEL, NAME, Record, parse

_TYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}  # TensorProto's numbers
_MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
_LARGEST = 2**31 - 1  # bytes of a protobuf message: more has to stand in external data
LONGEST = 60  # seconds that a graph may take for all images


def _ran(session, inputs, end):
    """What a session makes of inputs. TimeoutError where that takes longer than to ``end``, by time.monotonic; Ctrl-C
    and SIGTERM end it too, which the runtime by itself does not hear."""
    if not hasattr(session, "get_providers"):  # ONNX's own reference
        return session.run(None, inputs)
    import onnxruntime

    options = onnxruntime.RunOptions()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.run, None, inputs, options)
        try:
            return running.result(max(0, end - time.monotonic()))
        finally:
            options.terminate = True  # else leaving the pool would wait for it


def _named(path):
    """``path``, when ONNX's own tools can open it."""
    try:
        str(path).encode()
        return path
    except UnicodeEncodeError:
        raise ValueError(f"{path} is a name that ONNX's tools cannot read: give it letters that are UTF-8.") from None


class OnnxFile:
    """An .onnx file. ValueError where its images do not go through one layer alone that embeds their patches."""

    order: str | None = None  # of a patch's entries, "chw" or "hwc", where a MatMul takes them
    norm: str | None = None  # the LayerNormalization in front of it

    def __init__(self, path: Path):
        self.path = _named(regular(path))
        self._onnx = need("onnx", "onnx")
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path} is larger than 2 GB, which no ONNX file is: its tensors stand beside it.")
        self._model = self._onnx.ModelProto()
        try:
            self._model.ParseFromString(path.read_bytes())
            self._check_places()
            self._onnx.checker.check_model(str(path))
        except (self._onnx.checker.ValidationError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no valid ONNX model ({_short(error)}): export it again.") from error
        except Exception as error:  # whatever the parser says; its class is protobuf's own
            if isinstance(error, FileNotFoundError) or out_of_memory(error):
                raise
            raise ValueError(f"{path} is no ONNX model, or is damaged: export it again.") from error
        self._graph = self._model.graph
        self._tensors = {tensor.name: tensor for tensor in self._graph.initializer}
        self._held: dict[str, str] = {}  # the initializers of what is exchanged, by the names that ``tensor`` takes
        self._find()

    @property
    def record(self) -> Record | None:
        texts = [prop.value for prop in self._model.metadata_props if prop.key == NAME]
        if len(texts) > 1:
            raise ValueError(f"{self.path} has {len(texts)} records of a cipher: export it again.")
        return parse(texts[0], str(self.path), MODEL) if texts else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images, where the graph takes one size only."""
        h, w = _shape(self._input)[1:3] if self._channels_last else _shape(self._input)[2:]
        return (h, w) if h and w else None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every initializer; what is exchanged is called NAME.weight and NAME.bias, by its layer."""
        known = {held: name for name, held in self._held.items()}
        found = {known.get(name, name): tuple(tensor.dims) for name, tensor in self._tensors.items()}
        weight = f"{self.embedding}.weight"
        return found | ({weight: found[weight][::-1]} if self.order else {})  # as a Linear has it

    def tensor(self, name: str) -> torch.Tensor | None:
        """A tensor of the layers that are exchanged; None where it has no bias."""
        layer = name.rpartition(".")[0]
        if layer not in (self.embedding, self.norm):
            raise ValueError(f"{self.path} takes its images in the layer {self.embedding}, not in {layer}.")
        found = self._values(self._held[name]) if name in self._held else None
        return found.T if found is not None and self.order and found.ndim == 2 else found

    def stored(self, but: str) -> Iterator[tuple[str, torch.Tensor]]:
        """By name, the floating numbers of every initializer but one, flat."""
        for name, tensor in self._tensors.items():
            if name != self._held.get(but) and tensor.data_type in _TYPES and all(tensor.dims):
                yield name, self._values(name).flatten()

    def write(self, target: Path, values: Values, record: Record, force: bool) -> None:
        """Write the model, and its external data where it has some, with another embedding and the record."""
        _named(target)
        copies = self._places()
        for number, place in enumerate(copies):
            copies[place] = f"{target.name}.data" if len(copies) == 1 else f"{target.name}.{number}.data"
        for place, copied in itertools.product(copies, copies.values()):
            not_itself(self.path.with_name(place), target.with_name(copied))
        patches: dict[str, list[tuple[int, bytes]]] = {place: [] for place in copies}
        weight, bias = self._held[f"{self.embedding}.weight"], f"{self.embedding}.bias"
        if bias in values and (bias not in self._held or self._uses(self._held[bias]) > 1):  # none, or another's, too
            if self.order:
                raise ValueError(f"{self.embedding} of {self.path} has no bias of its own: export it with one.")
            shape, kind = values[bias].shape, self._tensors[weight].data_type
            data = b"\0" * values[bias].nbytes
            added = self._onnx.helper.make_tensor(f"{weight}.{NAME}.bias", kind, shape, data, raw=True)
            self._graph.initializer.append(added)
            self._tensors[added.name], self._held[bias] = self._graph.initializer[-1], added.name
            del self._layer.input[2:]
            self._layer.input.append(added.name)
        for name, value in values.items():
            self._put(self._held[name], value.T if self.order and value.ndim == 2 else value, patches)
        props = [prop for prop in self._model.metadata_props if prop.key != NAME]
        del self._model.metadata_props[:]
        self._model.metadata_props.extend(props)
        self._model.metadata_props.add(key=NAME, value=record.text())
        for place, copied in copies.items():
            out = target.with_name(copied)
            with replacing(out, over=force) as file, self.path.with_name(place).open("rb") as source:
                for start, length in {self._range(t) for t in self._external() if _entry(t, "location").value == place}:
                    file.seek(start)
                    for at in range(start, start + length, 2**20):  # what no tensor takes may be an older copy
                        source.seek(at)
                        file.write(source.read(min(2**20, start + length - at)))
                for offset, data in patches[place]:
                    file.seek(offset)
                    file.write(data)
        for tensor in self._external():
            place = _entry(tensor, "location")
            place.value = copies[place.value]
        sweep(target.parent)
        write_bytes(target, self._model.SerializeToString(), over=force)
        self._onnx.checker.check_model(str(target))

    def same_elsewhere(self, other: "OnnxFile", told: set[str]) -> list[str]:
        """What differs from the other file but the embedding: names of initializers, or "graph"."""
        mine, theirs = (set(f._held.values()) for f in (self, other))
        names = (set(self._tensors) | set(other._tensors)) - mine - theirs
        found = [name for name in sorted(names) if self._data(name) != other._data(name)]
        return found + ["graph"] * (self._bare() != other._bare())

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """The model's first output for normalised images, (N, ...) as (N, values), by ONNX Runtime, or where that is
        not installed by ONNX's own reference, which is slow. ValueError where they take longer than ``LONGEST``."""
        try:
            import onnxruntime

            onnxruntime.set_default_logger_severity(4)  # what is wrong is raised, too
            session: Any = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        except ModuleNotFoundError:
            session = need("onnx.reference", "onnx").ReferenceEvaluator(str(self.path))
        kind = _TYPES[self._input.type.tensor_type.elem_type]
        step = _shape(self._input)[0] or len(images)
        given = images.permute(0, 2, 3, 1).contiguous() if self._channels_last else images
        end = time.monotonic() + LONGEST
        try:
            found = [_ran(session, {self._input.name: part.to(kind).numpy()}, end)[0]
                     for part in given.split(step) if len(part) == step]  # fmt: skip
        except TimeoutError:
            raise ValueError(
                f"{self.path} was not done with {len(images)} images in {LONGEST} seconds: it may have no end, or give "
                "fewer images, with --images."
            ) from None
        except Exception as error:  # whatever a runtime says of a graph that it cannot run
            if out_of_memory(error):
                raise
            shape = tuple(images.shape)
            raise ValueError(
                f"{self.path} cannot be run on images {shape}: give some of a size that it takes, with --images "
                f"({_short(error)})."
            ) from error
        if not found:
            raise ValueError(f"{self.path} takes {step} images at a time: give as many.")
        return torch.cat([torch.from_numpy(part).flatten(1).double() for part in found])

    # -- the graph ---------------------------------------------------------------------------------------------------

    def _find(self):
        """The one node that takes the images."""
        inputs = [i for i in self._graph.input if i.name not in self._tensors]
        inputs = [i for i in inputs if len(shape := _shape(i)) == 4 and (shape[1] in (0, 3) or shape[3] == 3)]
        kinds = [i.type.tensor_type.elem_type for i in inputs]
        if len(inputs) == 1 and kinds[0] not in _TYPES:
            kind = self._onnx.TensorProto.DataType.Name(kinds[0])
            raise ValueError(
                f"{self.path} takes its images {inputs[0].name} as {kind}: export the model without its preprocessing, "
                "so that it takes floats."
            )
        inputs = [i for i, kind in zip(inputs, kinds, strict=True) if kind in _TYPES]
        if len(inputs) != 1:
            raise ValueError(f"{self.path} has {len(inputs)} inputs of images (N, 3, H, W) or (N, H, W, 3), not one.")
        self._input = inputs[0]
        self._channels_last = _shape(self._input)[1] != 3 and _shape(self._input)[3] == 3
        node, turned = self._only_reader(self._input.name), not self._channels_last
        while (turns := _attributes(node).get("perm") == [0, 3, 1, 2] and not turned) or self._passes_on(node):
            node, turned = self._only_reader(node.output[0]), turned or turns
        if node.op_type in _MOVES and self._find_linear(node):
            return
        if not turned:
            raise ValueError(
                f"{node.op_type} {node.name} takes the images (N, H, W, 3) of {self.path}, but only a Transpose to "
                "(N, 3, H, W) with a Conv behind it can: export the model without its preprocessing."
            )
        if why := self._why_not(node):
            raise ValueError(f"{node.op_type} {node.name} takes the images of {self.path}, but {why}.")
        self.embedding = self._hold(node, *node.input[1:])

    def _find_linear(self, node):
        """Whether moves lead to a MatMul on flat patches; ValueError where they do, but it cannot be exchanged."""
        while node.op_type in _MOVES or self._passes_on(node):
            node = self._only_reader(node.output[0])
        norm = node if node.op_type == "LayerNormalization" else None
        node = self._only_reader(node.output[0]) if norm else node
        dims = self._tensors[node.input[1]].dims if node.op_type == "MatMul" and node.input[1] in self._tensors else ()
        if len(dims) != 2 or (norm and _attributes(norm).get("axis", -1) != -1):
            return False
        self.order = self._order((norm or node).input[0], math.isqrt(dims[0] // 3))
        add = self._only_reader(node.output[0])
        bias = [name for name in add.input if name in self._tensors] if add.op_type == "Add" else []
        held = [node.input[1], *bias, *(norm.input[1:] if norm else ())]
        if not self.order or len(bias) != 1 or any(name not in self._tensors or self._uses(name) > 1 for name in held):
            raise ValueError(
                f"MatMul {node.name} takes the images of {self.path}, but not as flat patches in a known order, or its "
                "weight or bias is missing or used elsewhere, too: encrypt the model before it is exported."
            )
        self.embedding = self._hold(node, node.input[1], bias[0])
        self.norm = self._hold(norm, *norm.input[1:]) if norm else None
        return True

    def _hold(self, node, weight, bias=""):
        """Note the initializers of a layer that is exchanged; the name that it is given."""
        layer = (bias if self.order else weight).removesuffix("weight").removesuffix("bias").removesuffix(".")
        layer = layer or node.name or node.output[0]
        self._layer = node if not self._held else self._layer
        self._held |= {f"{layer}.{word}": name for word, name in (("weight", weight), ("bias", bias)) if name}
        return layer

    def _order(self, name, size):
        """The order in which the tensor ``name`` holds patches of the images, as random ones show; None for others."""
        needed, nodes = {name}, []
        for node in reversed(self._graph.node):
            if needed & set(node.output):
                needed |= set(node.input)
                nodes.insert(0, node)
        if any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for node in nodes for attribute in node.attribute):
            return None  # a loop, which the reference would run to its end, if it has one
        helper, output = self._onnx.helper, self._onnx.helper.make_empty_tensor_value_info(name)
        tensors = [tensor for held, tensor in self._tensors.items() if held in needed]
        graph = helper.make_graph(nodes, "patches", [self._input], [output], tensors)
        model = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        kind, count = _TYPES[self._input.type.tensor_type.elem_type], _shape(self._input)[0] or 1
        image = torch.randn(count, 3, *(self.size or (4 * size, 4 * size))).to(kind)
        given = image.permute(0, 2, 3, 1).contiguous() if self._channels_last else image
        try:
            found = (
                need("onnx.reference", "onnx").ReferenceEvaluator(model).run(None, {self._input.name: given.numpy()})
            )
        except Exception:  # whatever the reference says of a size or an operator that it does not take
            return None
        order = patch_order(torch.from_numpy(found[0]), image, size) if size else None
        return None if order is None else "chw" if (order[:-1] < order[1:]).all() else "hwc"

    def _only_reader(self, name):
        """The one node that reads the images, which are called so."""
        nodes = [node for node in self._graph.node if name in node.input and node.op_type != "Shape"]
        inner = any(name in node.input for node in _inner_nodes(self._graph))
        if len(nodes) != 1 or inner or any(output.name == name for output in self._graph.output):
            told = ", ".join(f"{node.op_type} {node.name}".strip() for node in nodes) or "none that is not in a branch"
            raise ValueError(
                f"The images of {self.path} go into {len(nodes)} nodes ({told}): one layer alone must take them, or "
                "the others would not know how to undo the cipher."
            )
        return nodes[0]

    def _passes_on(self, node):
        """Whether a node gives the images on as they are, but for their type."""
        return node.op_type == "Identity" or (node.op_type == "Cast" and _attributes(node)["to"] in _TYPES)

    def _why_not(self, node):
        if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
            return (
                "only a Conv, or a MatMul and Add on flat patches, can take the cipher in: export the model without "
                "its preprocessing"
            )
        found = _attributes(node)
        weight = self._tensors.get(node.input[1])
        if weight is None or any(name and name not in self._tensors for name in list(node.input)[2:]):
            made = [maker.op_type for maker in self._graph.node if set(maker.output) & set(list(node.input)[1:])]
            return (
                f"its weight or bias comes out of a node ({' and '.join(made) or 'none'}), and only an initializer can "
                "be exchanged: export the model with constants folded, and without quantising it"
            )
        if weight.data_type not in _TYPES or len(weight.dims) != 4:
            return "its weight is no (dim, 3, patch, patch) of floating numbers"
        if self._uses(node.input[1]) > 1:
            return "its weight is used elsewhere, too: export the model with a weight of its own in each place"
        if node.input[1] in [value.name for value in self._graph.input]:
            return "its weight can be given from outside: export the model with keep_initializers_as_inputs=False"
        kernel, strides = list(weight.dims[2:]), list(found.get("strides", [1, 1]))
        if kernel != strides:
            return f"its kernel of {kernel[0]} x {kernel[1]} moves by {strides[0]}: patches must not overlap"
        if kernel[0] != kernel[1]:
            return f"its kernel of {kernel[0]} x {kernel[1]} is not square"
        padded = any(found.get("pads", [])) or found.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        if padded or any(d != 1 for d in found.get("dilations", [])) or found.get("group", 1) != 1:
            return "it has padding, dilation or groups"
        return None

    def _uses(self, name):
        nodes = [*self._graph.node, *_inner_nodes(self._graph)]
        return sum(list(node.input).count(name) for node in nodes) + sum(o.name == name for o in self._graph.output)

    def _bare(self):
        """The graph without the embedding, the record and where tensors stand."""
        model = self._onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.initializer[:]
        del model.metadata_props[:]
        for node in model.graph.node:
            if node.output == self._layer.output and not self.order:
                del node.input[1:]
        return model.SerializeToString(deterministic=True)

    # -- tensors -----------------------------------------------------------------------------------------------------

    def _external(self):
        """Every tensor of the model that stands in another file."""
        return [tensor for tensor in _all_tensors(self._model) if tensor.data_location == 1]

    def _places(self):
        return {_entry(tensor, "location").value: "" for tensor in self._external()}

    def _check_places(self):
        """ValueError where external data is outside of the model's folder, or not all there."""
        folder = self.path.parent.resolve()
        for tensor in self._external():
            keys = [entry.key for entry in tensor.external_data]
            place = _entry(tensor, "location")
            if place is None or len(set(keys)) < len(keys):
                raise ValueError(f"the place of {tensor.name} is not told, or twice")
            path = folder / place.value
            inside = place.value and place.value == os.path.basename(place.value) and place.value.isprintable()
            if inside and not os.path.lexists(path):
                raise FileNotFoundError(f"The data of {self.path} is not beside it: put its file {place.value} there.")
            if not inside or path.is_symlink() or not path.is_file():
                raise ValueError(f"the data of {tensor.name} is not in a file of the model's own folder")
            offset, length = self._range(tensor)
            if offset < 0 or length < 0 or offset + length > path.stat().st_size:
                raise ValueError(f"the data of {tensor.name} is cut off")

    def _range(self, tensor):
        offset, length = _entry(tensor, "offset"), _entry(tensor, "length")
        start = int(offset.value) if offset else 0
        path = self.path.with_name(_entry(tensor, "location").value)
        return start, int(length.value) if length else path.stat().st_size - start

    def _data(self, name):
        """Type, shape and bytes of an initializer; None where there is none."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor.data_location == 1:
            start, length = self._range(tensor)
            with self.path.with_name(_entry(tensor, "location").value).open("rb") as file:
                file.seek(start)
                data = file.read(length)
        else:
            data = tensor.raw_data or self._onnx.numpy_helper.to_array(tensor).tobytes()
        return tensor.data_type, tuple(tensor.dims), data

    def _values(self, name):
        kind, shape, data = self._data(name)
        values = torch.frombuffer(bytearray(data), dtype=_TYPES[kind])
        if values.numel() != torch.Size(shape).numel():
            raise ValueError(f"{name} of {self.path} is not as large as its shape says: export the model again.")
        return values.view(shape)

    def _put(self, name, values, patches):
        tensor, data = self._tensors[name], values.contiguous().view(torch.uint8).numpy().tobytes()
        if tensor.data_location == 1:
            patches[_entry(tensor, "location").value].append((self._range(tensor)[0], data))
            return
        for field in ("float_data", "int32_data", "double_data"):
            tensor.ClearField(field)
        tensor.raw_data = data


def _entry(tensor, key):
    return next((entry for entry in tensor.external_data if entry.key == key), None)


def _shape(value):
    """The shape of an input, 0 for what is not fixed."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _attributes(node):
    get = need("onnx", "onnx").helper.get_attribute_value
    return {attribute.name: get(attribute) for attribute in node.attribute}


def _inner_nodes(graph):
    """The nodes of the graphs inside of nodes: branches and loops."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from inner.node
                yield from _inner_nodes(inner)


def _all_tensors(message):
    """Every TensorProto in a message, wherever it stands."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            if field.message_type.name == "TensorProto":
                yield part
            else:
                yield from _all_tensors(part)


def _short(error):
    return " ".join(str(error).split())[:150]
