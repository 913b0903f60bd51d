"""Pieces of the book that a reader moves: controls, a picture that follows them, and a sentence with its numbers.

    piece = turn_the_key(...)                       # the last line of a cell shows it
    piece.draw(turned=12)                           # its picture and its sentence, without a browser
    stills(piece, {"turned": 0}, {"turned": 12})    # what stands below it for those who only read

Each piece is one function ``draw`` of its controls' values, on small arrays made beforehand. It sets the bytes of an
image widget, for ``Output`` and ``interact`` of ipywidgets can hang a batch run.
"""

import copy
import html
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from PIL import Image
from torch import nn

from ..attacks.metrics import ssim
from ..learn.evaluate import logits
from ..lock import checks
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model, find_embedding
from ..lock.near import partway
from ..lock.patch import PatchCipher
from ..lock.pixels import to_bytes
from . import painting
from .painting import BLUE, GREY, ORANGE, SIDE, SMALL

STEPS = {
    "shuffle": ("shuffle",),
    "flip": ("flip",),
    "shuffle+flip": ("shuffle", "flip"),
    "orthogonal": ("orthogonal",),
}


def key_lab(pictures: dict[str, torch.Tensor], key: SecretKey) -> "Piece":
    """Encrypt a picture of one's choice, with steps, a block size and keys of one's choice (chapter 3).

    pictures: {name: uint8 (3, H, W)}; large ones are shrunk. key: the first key; a button draws new ones. What was
    encrypted with one key can be decrypted with another.
    """
    checks.instance(key, SecretKey, "key")
    _ask_for_pictures(pictures, "pictures")
    pictures = {name: painting.fitted(painting.enlarged(picture, 0)) for name, picture in pictures.items()}
    keys = {"key 1": key, "key 2": key.subkey("key 2")}
    same = "the same key"

    def draw(picture, steps, block_size, key, decrypt_with=same):
        plain = pictures[picture]
        used = [keys[key], keys[key if decrypt_with == same else decrypt_with]]
        cipher, other = (PatchCipher(each, patch_size=block_size, steps=STEPS[steps]) for each in used)
        encrypted = cipher.encrypt(plain)
        shown = [plain, to_bytes(encrypted), to_bytes(other.decrypt(encrypted))]
        matrix = painting.matrix(cipher.matrix()[0], SIDE)
        titles = ["plain", "encrypted", f"decrypted with {decrypt_with}", f"the matrix A, {cipher.n} × {cipher.n}"]
        alike = [round(ssim(plain[None], found[None])[0], 2) + 0 for found in shown[1:]]
        wrong, bits = int((shown[2] != plain).sum()), cipher.key_bits()
        sentence = (
            f"{steps}, blocks of {block_size}: SSIM {alike[0]:.2f} encrypted, {alike[1]:.2f} decrypted, where {wrong} "
            f"bytes differ; key space {'without end' if np.isinf(bits) else f'{bits:.1f} bits'}."
        )
        return painting.row([*map(painting.enlarged, shown), matrix], titles), sentence

    which = ipywidgets.Dropdown(options=list(pictures), description="picture")
    which_key = ipywidgets.Dropdown(options=list(keys), description="key")
    which_other = ipywidgets.Dropdown(options=[same, *keys], description="decrypt with")
    new_key = ipywidgets.Button(description="Draw a new key", icon="key")
    upload = ipywidgets.FileUpload(accept="image/*", description="Your picture")
    piece = Piece(
        draw,
        (new_key, upload),
        picture=which,
        steps=ipywidgets.Dropdown(options=list(STEPS), value="shuffle+flip", description="steps"),
        block_size=ipywidgets.Dropdown(options=[2, 4, 8], value=4, description="block size"),
        key=which_key,
        decrypt_with=which_other,
    )

    def add(choices, choice, name, value):
        choices[name] = value
        choice.options = [name, *(other for other in choices if other != name)]  # the first is then chosen
        piece.update()  # also where a second file has the name of the first

    def read_upload(change):
        for file in change["new"]:
            try:
                add(pictures, which, file["name"], painting.fitted(painting.read(file["content"])))
            except ValueError as error:
                piece.children[-1].value = html.escape(f"{file['name']} {error}")
        upload.value = ()  # so that the same file can be chosen again

    def draw_key(_):
        add(keys, which_key, f"key {len(keys) + 1}", SecretKey.generate())
        chosen, which_other.options = which_other.value, [same, *keys]
        which_other.value = chosen

    new_key.on_click(draw_key)
    upload.observe(read_upload, "value")
    return piece


def look_inside(
    model: nn.Module, image: torch.Tensor, cipher: PatchCipher, *, mean: Sequence[float], std: Sequence[float]
) -> "Piece":
    """Encrypt a model entry by entry, and see where each weight of a filter goes (chapter 4).

    model: a plain classifier; image: one (3, H, W), uint8; cipher: shuffles and flips, of the model's patch size.
    Filters are shown in units of plain pixel values, as rows of W D^-1, which encryption only moves and negates.
    """
    norm: dict[str, Any] = {"mean": mean, "std": std}
    checks.instance(cipher, PatchCipher, "cipher")
    find_embedding(model)
    checks.images(image, 3, name="image", ndim=(3,), bytes_only=True)
    model, image = copy.deepcopy(model).double(), image[None].double() / 255
    plain_logits = logits(model, image, **norm)[0]
    nothing = PatchCipher.from_entries(np.arange(cipher.n), np.zeros(cipher.n, bool), cipher.patch_size)

    def filters(model):
        weight = find_embedding(model)[1].weight.detach().numpy()
        return (weight / np.reshape(std, (3, 1, 1))).reshape(len(weight), -1)

    plain_filters = filters(model)
    strongest = np.argsort(-np.linalg.norm(plain_filters, axis=1))[:12]

    def draw(number, entries):
        so_far = partway(nothing, cipher, entries)
        encrypted_model = encrypt_model(model, so_far, **norm)
        matched = logits(encrypted_model, so_far.encrypt(image), **norm)[0]
        unmatched = logits(encrypted_model, image, **norm)[0]
        errors = [(found - plain_logits).abs().max().item() for found in (matched, unmatched)]

        shown, last, moved, source = strongest[number - 1], None, "nothing has moved yet", None
        if entries:
            last = entries - 1
            source = so_far.permutation[last]
            sign = "changed" if so_far.flipped[last] else "kept"
            moved = f"entry {last} took the weight of entry {source}, its sign {sign}"
        parts = [
            painting.weights_of_filter(plain_filters[shown], cipher.patch_size, source),
            painting.weights_of_filter(filters(encrypted_model)[shown], cipher.patch_size, last),
            painting.bars(np.stack([plain_logits, matched], 1), [(BLUE, ORANGE)] * len(matched), 2 * SMALL),
        ]
        titles = ["plain filter: red, green, blue", "encrypted filter", "logits, plain and encrypted"]
        sentence = (
            f"{entries} of {cipher.n} entries encrypted: {moved}. Largest difference of a logit: {errors[0]:.9f} "
            f"(if the image stayed plain: {errors[1]:.2f})."
        )
        return painting.row(parts, titles, gap=2 * painting.GAP), sentence

    return Piece(
        draw,
        number=_slider("filter", 1, len(strongest)),
        entries=_slider("entries encrypted", 0, cipher.n),
    )


def turn_the_key(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    cipher: PatchCipher,
    wrong_cipher: PatchCipher,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> "Piece":
    """Turn a correct key into a wrong one, entry by entry, and see what an encrypted model predicts (chapter 5).

    model: the plain classifier; images (N, 3, H, W), uint8, and labels (N,): all count for the accuracy, and the first
    eight that the plain model reads correctly are shown. Both ciphers: shuffles and flips of the model's patch size.
    """
    norm: dict[str, Any] = {"mean": mean, "std": std}
    labels = checks.labels(labels, len(checks.images(images, 3, bytes_only=True)))
    checks.instance(cipher, PatchCipher, "cipher")
    checks.instance(wrong_cipher, PatchCipher, "wrong_cipher")
    shown = np.flatnonzero(logits(model, images, **norm).argmax(1) == labels)[:8]
    if not len(shown):
        raise ValueError("The model must read one of the images rightly at least, so that there is one to show.")
    encrypted_model = encrypt_model(model, cipher, **norm)

    def draw(turned):
        tried = partway(cipher, wrong_cipher, turned)
        # The wrong key is folded into the model, so that no image needs to be encrypted.
        found = logits(decrypt_model(encrypted_model, tried, **norm), images, **norm)
        predicted, chances = found.argmax(1), found.softmax(1).numpy()
        # Encrypted with the tried key and decrypted with the correct one: what the filters make of an image.
        seen, columns = cipher.decrypt(tried.encrypt(images[shown])), []
        for image, label, answer, heights in zip(seen, labels[shown], predicted[shown], chances[shown], strict=True):
            colours = [[GREY]] * len(heights)
            colours[answer] = [BLUE if answer == label else ORANGE]
            bars = painting.bars(heights[:, None], colours, SMALL, top=1)
            parts = [painting.enlarged(image, SMALL), painting.text(f"{label} → {answer}"), bars]
            columns.append(painting.column(parts))
        wrong = int(((tried.permutation != cipher.permutation) | (tried.flipped != cipher.flipped)).sum())
        sentence = (
            f"{turned} of {cipher.n} entries turned, {wrong} entries wrong: "
            f"accuracy {(predicted == labels).double().mean().item():.1%} on {len(labels)} images."
        )
        return painting.row(columns), sentence

    return Piece(draw, turned=_slider("entries turned", 0, cipher.n))


def break_it(picture: torch.Tensor, encrypted: torch.Tensor, recovered: dict[int, torch.Tensor]) -> "Piece":
    """See how many observed images an attack needs (chapter 7).

    picture, encrypted: uint8 (3, H, W). recovered: {number of observed images: uint8 (3, H, W)}, what an attack that
    observed so many made of ``encrypted``.
    """
    checks.wholes(recovered, "The numbers of observed images", 0)
    _ask_for_pictures({"picture": picture, "encrypted": encrypted}, "")
    _ask_for_pictures(recovered, "recovered")
    alike = {observed: ssim(picture[None], found[None])[0] for observed, found in recovered.items()}

    def draw(observed):
        titles = ["the picture", "encrypted", f"recovered, images observed: {observed}"]
        parts = [painting.enlarged(shown) for shown in (picture, encrypted, recovered[observed])]
        sentence = (
            f"Images observed: {observed}. SSIM of the recovered picture and the original: {alike[observed]:.2f}."
        )
        return painting.row(parts, titles), sentence

    slider = ipywidgets.SelectionSlider(options=sorted(recovered), description="images observed")
    return Piece(draw, observed=_wide(slider))


def stills(piece: "Piece", *settings: dict) -> Image.Image:
    """The pictures of a piece for several settings of its controls, each below its sentence, as one picture."""
    parts = []
    checks.instance(piece, Piece, "piece")
    for values in settings:
        checks.instance(values, Mapping, "A setting")
        picture, sentence = piece.draw(**values)
        parts += [*map(painting.text, textwrap.wrap(sentence, 115)), picture]
    return painting.column(parts)


class Piece(ipywidgets.VBox):
    """Controls, and below them the picture and the sentence that ``draw`` gives for their values."""

    def __init__(self, draw, others=(), **controls):
        row = ipywidgets.HBox([*controls.values(), *others], layout={"flex_flow": "row wrap"})
        picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"})
        super().__init__([row, picture, ipywidgets.HTML()])
        self.draw, self._controls = draw, controls
        for control in controls.values():
            control.observe(self.update, "value")
        self.update()

    def __repr__(self):  # what a notebook shows in place of the piece before it is run
        return "An interactive piece: run the chapter to move it. The picture below shows some of its positions."

    def update(self, _: Any = None) -> None:
        """Show what ``draw`` gives now."""
        drawn, words = self.draw(**{name: control.value for name, control in self._controls.items()})
        file = io.BytesIO()
        drawn.save(file, "png", compress_level=1)
        _, picture, sentence = self.children
        picture.value, sentence.value = file.getvalue(), html.escape(words)


def _ask_for_pictures(value, name):
    checks.instance(value, Mapping, name)
    if not value:
        raise ValueError(f"{name} must hold a picture at least.")
    for one in value.values():
        checks.images(one, 3, name="A picture", ndim=(3,), bytes_only=True)


def _slider(description, low, high):
    return _wide(ipywidgets.IntSlider(value=low, min=low, max=high, description=description))


def _wide(slider):
    slider.layout, slider.style = {"width": "28rem", "max_width": "100%"}, {"description_width": "initial"}
    return slider
