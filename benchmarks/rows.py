"""What a row of the benchmark's table says."""

NO_GPU = "no GPU at hand"


def row(measure, value, goal=None, *, at_most=False, ours=None, reference=None, unit="s", against="", **more):
    """One line: ``value`` is what the goal is about; ``ours`` and ``reference`` are what it was computed from."""
    met = None if goal is None else "yes" if (value <= goal if at_most else value >= goal) else "no"
    sign = "" if goal is None else "at most " if at_most else "at least "
    return {
        "measure": measure,
        "value": value,
        "goal": goal if goal is None else f"{sign}{goal:g}",
        "met": met,
        "ours": ours,
        "reference": reference,
        "unit": unit,
        "against": against,
        **more,
    }


def no_gpu(measure, goal):
    """The line of a goal for a GPU on a machine without one."""
    return {"measure": measure, "value": float("nan"), "goal": goal, "met": NO_GPU}
