"""The playground in a browser: it answers to mouse, keyboard and files with the library's numbers, from a disk too."""

import re
import runpy
import shutil

import pytest
import torch
from PIL import Image

from cmxlib import PatchCipher, SecretKey, encrypt_model, load_dataset, logits
from cmxlib.study.scales import trained_model

from .conftest import ROOT

STATIC = ROOT / "site" / "static"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title>
<link rel="stylesheet" href="playground.css">
<div class="playground" data-piece="PIECE"><p>a still</p></div><script src="cmx.js"></script>
<script src="playground.js"></script>"""
PIXELS = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 32, 32).data].filter((_, i) => i % 4 < 3)"
DARK_CORNER = "document.querySelector('.paper canvas').getContext('2d').getImageData(0, 0, 1, 1).data[0] < 12"
SHARES = "[...document.querySelectorAll('tbody tr')].map(row => [...row.cells].slice(1).map(td => td.textContent))"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    for name in ("cmx.js", "playground.js", "playground.css"):
        shutil.copy(STATIC / name, folder)
    runpy.run_path(str(ROOT / "site" / "playground.py"))["write"](folder / "playground")
    for piece in ("lock", "encrypt", "inside", "turn", "break"):
        (folder / f"{piece}.html").write_text(PAGE.replace("PIECE", piece))
    return folder


@pytest.fixture
def lock(folder, open_page):
    """The playground of the first page, opened from the disk; what goes wrong in it is asserted at the end."""
    page, wrong = open_page(folder.as_uri())
    page.goto(f"{folder.as_uri()}/lock.html")
    page.wait_for_selector(".playground[data-ready=digits]")
    yield page
    assert wrong == []


def picture(page, name=None) -> torch.Tensor:
    """The pixels of a picture (3, 32, 32), uint8: one's own, or the one of that name."""
    canvas = page.query_selector(f"[data-picture={name}]" if name else ".paper canvas")
    return torch.tensor(canvas.evaluate(PIXELS), dtype=torch.uint8).view(32, 32, 3).permute(2, 0, 1)


def move(page, name: str, value) -> None:
    page.locator(f"[data-name={name}]").fill(str(value))


def expected_shares(image: torch.Tensor, right: PatchCipher, wrong: PatchCipher) -> torch.Tensor:
    data, (model, _) = load_dataset("fontdigits"), trained_model("quick", progress=False)
    locked, batch = encrypt_model(model, right, **data.norm), image[None]
    cases = [(model, batch), (locked, right.encrypt(batch)), (locked, wrong.encrypt(batch)), (locked, batch)]
    chances = [logits(network, seen, **data.norm).softmax(1)[0] for network, seen in cases]
    return torch.stack(chances, 1)


def shares(page) -> torch.Tensor:
    texts = page.evaluate(SHARES)
    return torch.tensor([[float(text.removesuffix(" %")) / 100 for text in row] for row in texts])


def test_a_drawing_is_encrypted_and_read_as_by_the_library(lock):
    lock.click("text=Draw one")
    assert lock.locator(".hint").is_visible()
    box = lock.locator(".paper canvas").bounding_box()
    at = [
        (box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        for x, y in ((0.38, 0.28), (0.62, 0.28), (0.45, 0.72))
    ]
    lock.mouse.move(*at[0])
    lock.mouse.down()
    for place in at[1:]:
        lock.mouse.move(*place, steps=8)
    lock.mouse.up()
    lock.wait_for_function("document.querySelector('.said').textContent.startsWith('The plain network reads 7')")
    image = picture(lock)
    for key, other in ((0, 1), (5, 9)):
        move(lock, "key", key)
        move(lock, "other", other)
        right, wrong = (PatchCipher(SecretKey.for_experiment(seed)) for seed in (key, other))
        # The page computes with the values that were drawn, and shows them in bytes.
        assert (picture(lock, "encrypted").int() - right.encrypt(image).int()).abs().max() <= 1
        assert (picture(lock, "turned").int() - wrong.encrypt(image).int()).abs().max() <= 1
        assert (shares(lock) - expected_shares(image, right, wrong)).abs().max() < 0.012
    assert not lock.locator(".hint").is_visible()


def test_the_slider_turns_the_key_and_the_accuracies_follow(lock):
    lock.focus("[data-name=turned]")
    lock.keyboard.press("Home")
    assert "0 of 48, 0 wrong" in lock.locator(".slider output").inner_text()
    table = shares(lock)
    assert torch.equal(table[:, 0], table[:, 2]) and not torch.equal(table[:, 0], table[:, 3])
    lock.keyboard.press("ArrowRight")
    assert "1 of 48, 2 wrong" in lock.locator(".slider output").inner_text()
    lock.wait_for_function("!document.querySelector('tfoot').textContent.includes('…')")
    plain, right, turned, none = (float(text.removesuffix(" %")) for text in lock.locator("tfoot td").all_inner_texts())
    assert plain == right > 90 and turned > 80 and none < 40


def test_drawing_by_keyboard(lock):
    before = picture(lock)
    lock.focus(".paper canvas")
    for key in ["ArrowLeft", " ", *["ArrowDown"] * 12]:
        lock.keyboard.press(key)
    drawn = picture(lock)
    assert not torch.equal(drawn, before)
    assert (drawn[0, 9:20, 14] > 150).all() and (drawn[0, :, 25] < 100).all()


def test_own_files(lock, tmp_path):
    path, key = tmp_path / "mine.png", SecretKey.generate()
    Image.linear_gradient("L").save(path)
    with lock.expect_file_chooser() as chooser:
        lock.click("text=Your own picture")
    chooser.value.set_files(path)
    lock.wait_for_function(DARK_CORNER)
    key.save(tmp_path / "my.key")
    before = picture(lock, "encrypted")
    lock.set_input_files("[data-name=keyfile]", tmp_path / "my.key")
    lock.wait_for_function("document.querySelector('[data-name=key]').value === ''")
    assert torch.equal(picture(lock, "encrypted"), PatchCipher(key).encrypt(picture(lock)))
    assert not torch.equal(picture(lock, "encrypted"), before)
    lock.set_input_files("[data-name=keyfile]", path)
    lock.wait_for_function("document.querySelector('.said').textContent.includes('not a complete cmxlib key file')")


def test_photographs_and_every_cipher(lock, tmp_path):
    assert lock.locator("script[src$='photos.js']").count() == 0  # its network is asked for on demand
    lock.click("text=Photographs")
    lock.wait_for_selector(".playground[data-ready=photos]")
    assert lock.locator("script[src$='photos.js']").count() == 1
    assert "plain network reads cat" in lock.locator(".said").inner_text()
    for steps in ("shuffle", "flip", "orthogonal"):
        lock.select_option("[data-name=steps]", steps)
        table = shares(lock)
        assert torch.equal(table[:, 0], table[:, 1]) and not torch.equal(table[:, 0], table[:, 2])
        assert re.findall(r"[\d.]+ %", lock.locator("tfoot").inner_text())[:2] == ["84.8 %", "84.8 %"]
    Image.linear_gradient("L").save(tmp_path / "mine.png")
    lock.set_input_files("[data-name=file]", tmp_path / "mine.png")
    lock.wait_for_function(DARK_CORNER)
    own = shares(lock)  # a picture of one's own
    assert torch.equal(own[:, 0], own[:, 1]) and not torch.equal(own, table)


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        ("encrypt", "0 come back otherwise"),
        ("inside", "0.000000000 with the encrypted"),
        ("turn", "plain network reads"),
    ],
)
def test_the_pieces_of_the_chapters(folder, open_page, piece, says):
    page, wrong = open_page(folder.as_uri(), width=400)
    page.goto(f"{folder.as_uri()}/{piece}.html")
    page.wait_for_selector(".playground[data-ready]")
    name = "decrypted" if piece == "encrypt" else "encrypted" if piece == "inside" else "turned"
    before = picture(page, name)
    assert page.locator("[data-name=turned]").input_value() == "0" and says in page.locator(".said").inner_text()
    page.focus("[data-name=turned]")
    page.keyboard.press("End")
    assert not torch.equal(picture(page, name), before) and wrong == []


def test_the_attack_breaks_the_photograph(folder, open_page):
    page, wrong = open_page(folder.as_uri())
    page.goto(f"{folder.as_uri()}/break.html")
    page.wait_for_selector(".playground[data-ready]")
    pixels = PIXELS.replace("32, 32", "144, 144")
    plain, recovered = (page.query_selector(f"[data-picture={name}]") for name in ("plain", "recovered"))
    assert plain.evaluate(pixels) != recovered.evaluate(pixels)
    page.focus("[data-name=turned]")
    page.keyboard.press("End")
    assert "48 entries, 48 were found" in page.locator(".said").inner_text()
    assert plain.evaluate(pixels) == recovered.evaluate(pixels) and wrong == []


def test_without_its_data_the_still_stays(folder, open_page, tmp_path):
    for path in folder.glob("*.*"):
        shutil.copy(path, tmp_path)
    page, _ = open_page(tmp_path.as_uri())
    page.goto(f"{tmp_path.as_uri()}/lock.html")
    page.wait_for_timeout(500)
    assert page.locator(".playground").inner_text().strip() == "a still"
