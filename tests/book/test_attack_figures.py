"""The plots of attacks say what their rows say: checked in the artists, on hand-made rows."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from cmxlib.book import attack_figures, style

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    mpl.pyplot.close("all")


def curves(axis):
    """{label: (x values, y values)} of the lines that have a label."""
    lines = [line for line in axis.lines if not line.get_label().startswith("_")]
    return {line.get_label(): tuple(np.round(part, 9).tolist() for part in line.get_data()) for line in lines}


def attack_rows():
    rows = []
    for public, neighbours, patch_size, steps, shares in (
        ("same data set", True, 4, "shuffle+flip", {10: (0.2, 0.4), 100: (1.0, 1.0)}),
        ("same data set", True, 8, "orthogonal", {10: (0.0, 0.1)}),
        ("same data set", False, 4, "shuffle+flip", {10: (0.9, 0.9)}),  # not shown: without neighbours
        ("photos", True, 4, "shuffle+flip", {10: (0.1, 0.3)}),
    ):
        where = {"public": public, "neighbours": neighbours, "patch_size": patch_size, "steps": steps}
        for count, values in shares.items():
            rows += [{**where, "n_encrypted": count, "measure": "share_recovered", "value": v} for v in values]
            rows.append({**where, "n_encrypted": count, "measure": "ssim", "value": 0.5})
    return pd.DataFrame(rows)


def test_attacks_are_drawn_by_steps_size_and_public_images():
    left, middle, right = attack_figures.attacks(attack_rows()).axes
    assert curves(left)["shuffle+flip"] == ([10, 100], pytest.approx([30, 100]))
    assert "orthogonal" not in curves(left)  # measured with another patch size only
    assert curves(middle)["4 × 4"] == ([10, 100], pytest.approx([30, 100]))
    assert curves(right)["photos"] == ([10], pytest.approx([20]))


def test_visibility_puts_each_measure_in_its_panel():
    rows = pd.DataFrame(
        {"measure": measure, "patch_size": size, "steps": steps, "value": value + size}
        for measure, value in (("ssim", 0.1), ("psnr", 10), ("contrast_correlation", 0.5))
        for size in (2, 4)
        for steps in style.STEPS
    )
    axes = attack_figures.visibility(rows).axes
    for axis, start in zip(axes, (0.1, 10, 0.5), strict=True):
        (flips,) = (
            line for line in axis.lines if line.get_marker() == style.STEPS["flip"][1] and len(line.get_xdata())
        )
        assert mpl.colors.same_color(flips.get_color(), style.STEPS["flip"][0])
        assert flips.get_ydata() == pytest.approx([start + 2, start + 4])


def test_stolen_models_are_drawn_at_the_full_budget_and_against_time():
    rows = [{"method": "no key", "n_plain": 0, "budget": 0, "measure": "accuracy", "value": 0.15}]
    for method, accuracies in (("everything", {100: 0.3, 300: 0.6}), ("from nothing", {100: 0.2, 300: 0.4})):
        for budget, value in accuracies.items():
            where = {"method": method, "n_plain": 1000, "budget": budget}
            rows.append({**where, "measure": "accuracy", "value": value})
            rows.append({**where, "measure": "attack_seconds", "value": budget / 10})
    left, right = attack_figures.stolen_model(pd.DataFrame(rows)).axes
    assert curves(left) == {
        "fine-tune everything": ([1000], pytest.approx([60])),
        "a new network, no theft": ([1000], pytest.approx([40])),
    }
    assert curves(right)["fine-tune everything"] == ([10, 30], pytest.approx([30, 60]))
    assert right.get_title() == "1,000 plain images"
    assert left.lines[-1].get_ydata()[0] == pytest.approx(15)  # dotted: without a key
