"""The rule of the house: a file imports from its room or from rooms to the left; no private name leaves a file."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import cmxlib

HOUSE = Path(cmxlib.__file__).parent
ROOMS = ["paths", "lock", "files", "learn", "attacks", "study", "book"]


def imports():
    """(file, room, imported module as a path within the house, imported names), imports inside functions included."""
    for path in sorted(HOUSE.rglob("*.py")):
        here = path.relative_to(HOUSE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("cmxlib")):
                base = list(here[: len(here) - node.level]) if node.level else []
                module = [*base, *[part for part in (node.module or "").split(".") if part and part != "cmxlib"]]
                for alias in node.names:
                    inner = HOUSE.joinpath(*module, f"{alias.name}.py").exists()
                    yield here, tuple([*module, alias.name] if inner else module), "" if inner else alias.name


def test_imports_go_left_without_circles_and_private_names_stay_at_home():
    graph, wrong = {}, []
    for here, there, name in imports():
        if len(here) > 1 and there:  # __init__ and __main__ stand outside the rooms: they hand names on
            graph.setdefault(here, set()).add(there)
            if ROOMS.index(there[0]) > ROOMS.index(here[0]):
                wrong.append(f"{'/'.join(here)} imports from {there[0]}, which is to its right")
        if (name.startswith("_") and not name.endswith("__")) or "._" in ".".join(["", *there]):
            wrong.append(f"{'/'.join(here)} takes the private name {name} of {'/'.join(there)}")
    assert not wrong, "\n".join(wrong)
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def public_functions(tree, prefix=""):
    """(name, node) of the functions and methods that others may call."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node


def bare(node):
    """What a function lacks a type hint for: names of arguments, or "return"."""
    of_object = {"self", "cls"}
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    starred = [found for found in (node.args.vararg, node.args.kwarg) if found]
    lacking = [one.arg for one in [*arguments, *starred] if one.annotation is None and one.arg not in of_object]
    return lacking + ["return"] * (node.returns is None)


def test_public_functions_carry_type_hints():
    """Whether the hints are right, mypy says."""
    found = [
        f"{path.relative_to(HOUSE)}:{node.lineno} {name}: {', '.join(lacking)}"
        for path in sorted(HOUSE.rglob("*.py"))
        for name, node in public_functions(ast.parse(path.read_text(encoding="utf-8")))
        if (lacking := bare(node))
    ]
    assert not found, "\n".join(found)
