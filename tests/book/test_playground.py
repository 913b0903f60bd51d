"""The script of the web edition's playground computes what the library computes, and reads the same keys."""

import json
import runpy
import shutil
import subprocess

import numpy as np
import pytest
import torch

from cmxlib import PatchCipher, SecretKey, decrypt_model, encrypt_model, load_dataset, logits
from cmxlib.lock.near import partway
from cmxlib.paths import ROOT
from cmxlib.study.scales import trained_model

SCRIPT = ROOT / "site" / "static" / "cmx.js"
STEPS = {
    "shuffle": ("shuffle",),
    "flip": ("flip",),
    "shuffle+flip": ("shuffle", "flip"),
    "orthogonal": ("orthogonal",),
}
N = 6  # images


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    runpy.run_path(str(ROOT / "site" / "playground.py"))["write"](folder)
    return folder


def computed(code: str, *arguments) -> object:
    """What the JavaScript `code` returns, run by Node with the script as `cmx`."""
    node = shutil.which("node")
    if not node:
        pytest.skip("the playground's script is not compared without Node: install the system's package nodejs")
    program = f"const cmx = require({json.dumps(str(SCRIPT))}), args = process.argv.slice(1);\n"
    program += f"process.stdout.write(JSON.stringify((() => {{ {code} }})()));"
    done = subprocess.run([node, "-e", program, "--", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("seed", [0, 1, 2**53 - 1])
def test_the_same_draws_of_an_experiment_key(seed):
    found = computed(
        """const key = cmx.experimentKey(Number(args[0]));
        return {stream: cmx.hex(cmx.stream(key, 200, "flip")), order: cmx.permutation(key, 48, "shuffle"),
                large: cmx.permutation(key, 1000, "shuffle"), bits: cmx.bits(key, 13, "flip"),
                matrix: cmx.orthogonal(key, 48, "orthogonal").map((row) => [...row])};""",
        seed,
    )
    key = SecretKey.for_experiment(seed)
    assert found["stream"] == key.stream(200, purpose="flip").hex()
    assert found["order"] == key.permutation(48, purpose="shuffle").tolist()
    assert found["large"] == key.permutation(1000, purpose="shuffle").tolist()
    assert found["bits"] == key.bits(13, purpose="flip").tolist()
    assert np.abs(np.array(found["matrix"]) - key.orthogonal(48, purpose="orthogonal")).max() < 1e-11


def test_a_key_file_and_a_damaged_one(tmp_path):
    key, path = SecretKey.generate(), tmp_path / "my.key"
    key.save(path)
    code = 'return cmx.permutation(cmx.keyFromFile(require("fs").readFileSync(args[0], "utf8")).secret, 48, "shuffle");'
    assert computed(code, path) == key.permutation(48, purpose="shuffle").tolist()
    text = path.read_text()
    path.write_text(text.replace("origin: generated", "origin: passphrase"))
    code = """try { cmx.keyFromFile(require("fs").readFileSync(args[0], "utf8")); }
        catch (error) { return error.message; }"""
    assert computed(code, path) == "This key file is damaged: its check does not match."
    path.write_text(text[:-3])
    assert "not a complete" in computed(code, path)


LOAD = """require(args[0]); const d = cmxData.NAME, pixels = cmx.values(cmx.fromBase64(d.images));
const images = d.labels.map((_, i) => pixels.subarray(3072 * i, 3072 * i + 3072)).slice(0, COUNT);
const model = cmx.convmixer(cmx.safetensors(cmx.fromBase64(d.weights)), d.mean, d.std);"""


@pytest.mark.parametrize("steps", STEPS)
def test_logits_are_the_librarys_with_every_key(assets, steps):
    found = computed(
        LOAD.replace("NAME", "digits").replace("COUNT", str(N))
        + """const [right, wrong] = [0, 1].map((seed) => cmx.cipher(cmx.experimentKey(seed), 4, args[1]));
        const locked = cmx.encryptModel(model, right), all = (m, f) => images.map((image) => cmx.logits(m, f(image)));
        const bytes = (image) => Array.from(image, (value) => Math.round(255 * value));
        const half = cmx.partway(right, wrong, 20);
        return {plain: all(model, (image) => image), right: all(locked, (image) => cmx.encrypt(image, right)),
                wrong: all(locked, (image) => cmx.encrypt(image, wrong)), none: all(locked, (image) => image),
                half: all(locked, (image) => cmx.encrypt(image, half)),
                folded: all(cmx.decryptModel(locked, half), (image) => image),
                encrypted: Array.from(cmx.encrypt(images[3], right)), bytes: bytes(cmx.encrypt(images[3], right)),
                back: bytes(cmx.decrypt(cmx.encrypt(images[3], right), right))};""",
        assets / "digits.js",
        steps,
    )
    data, (model, _) = load_dataset("fontdigits"), trained_model("quick", progress=False)
    images = data.test_images[:N]
    right, wrong = (PatchCipher(SecretKey.for_experiment(seed), 4, steps=STEPS[steps]) for seed in (0, 1))
    locked = encrypt_model(model, right, **data.norm)
    if steps == "orthogonal":  # the library has no half-turned one: the first rows of the other key's matrix
        rows = np.r_[wrong.matrix()[0][:20], right.matrix()[0][20:]]
        half = PatchCipher.from_affine(rows, np.zeros(48))
    else:
        half = partway(right, wrong, 20)
        assert found["bytes"] == right.encrypt(images[3]).flatten().tolist()
    expected = {
        "plain": logits(model, images, **data.norm),
        "right": logits(locked, right.encrypt(images), **data.norm),
        "wrong": logits(locked, wrong.encrypt(images), **data.norm),
        "none": logits(locked, images, **data.norm),
        "half": logits(locked, half.encrypt(images), **data.norm),
        "folded": logits(decrypt_model(locked, half, **data.norm), images, **data.norm),
    }
    for case, values in expected.items():
        assert (torch.tensor(found[case]) - values).abs().max() < 1e-4, case
    encrypted = right.encrypt(images[3].double() / 255).flatten()
    assert (torch.tensor(found["encrypted"], dtype=torch.float64) - encrypted).abs().max() < 1e-11
    assert found["back"] == images[3].flatten().tolist()


def test_the_network_for_photographs(assets):
    code = LOAD.replace("NAME", "photos").replace("COUNT", "1")
    found = computed(f"{code} return [images[0], cmx.logits(model, images[0]), d];", assets / "photos.js")
    image = torch.tensor(list(found[0].values())).view(1, 3, 32, 32)
    model, _ = trained_model("small", progress=False)
    expected = logits(model, image, mean=found[2]["mean"], std=found[2]["std"])[0]
    assert (torch.tensor(found[1]) - expected).abs().max() < 1e-4
    assert found[2]["classes"][int(expected.argmax())] == "cat"
    assert found[2]["recorded"]["shuffle"][0] == pytest.approx(84.77)
