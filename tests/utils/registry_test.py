import importlib

import pytest

from meta_pseudo_labels.utils.registry import Registry, UnknownName


@pytest.fixture
def tools():
    registry = Registry("tool")
    registry.register("hammer")(1)
    registry.register("saw")(2)
    return registry


def test_it_is_a_mapping_in_the_order_of_registration(tools):
    assert dict(tools) == {"hammer": 1, "saw": 2}
    assert list(tools) == ["hammer", "saw"] and len(tools) == 2
    assert "saw" in tools and "axe" not in tools
    assert tools.get("axe") is None


def test_an_unknown_name_comes_with_near_ones(tools):
    with pytest.raises(UnknownName) as caught:
        tools["hamer"]
    assert str(caught.value) == (
        "Unknown tool 'hamer' (did you mean hammer?); use one of "
        "('hammer', 'saw')."
    )
    with pytest.raises(ValueError, match="^Unknown tool 'x'; use"):
        tools["x"]


def test_a_name_is_taken_once(tools):
    with pytest.raises(ValueError, match="The tool 'saw' is 2 already"):
        tools.register("saw")(3)
    tools.register("saw")(2)

    class Axe:
        pass

    assert tools.register("axe")(Axe) is Axe
    assert tools["axe"] is Axe


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a package of a name, which can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, **modules):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        modules["__init__"] = (
            "from meta_pseudo_labels.utils.registry import Registry\n"
            f"TOOLS = Registry('tool', package='{name}')\n"
        )
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        return importlib.import_module(name).TOOLS

    return write


def test_modules_of_its_package_are_found(package):
    """When a name is asked for, and once."""
    plane = "from toolbox import TOOLS\nTOOLS.register('plane')(len(TOOLS))\n"
    tools = package("toolbox", plane=plane)
    assert tools.registered == {}
    assert dict(tools) == {"plane": 0}


def test_what_is_defined_again_takes_its_place(tools):
    for version in (1, 2):

        @tools.register("plane")
        class Plane:
            number = version

    assert tools["plane"].number == 2


def test_a_package_that_fails_is_asked_again(package):
    """Half of it is not taken for all; nor is its KeyError for no name."""
    tools = package("shed", rake="raise KeyError('rust')\n")
    for _ in range(2):
        with pytest.raises(KeyError, match="rust"):
            list(tools)


def test_a_stranger_cannot_take_a_name_of_the_package(package):
    fork = "from barn import TOOLS\n@TOOLS.register('fork')\nclass Fork: pass\n"
    tools = package("barn", fork=fork)

    class Fork:
        pass

    with pytest.raises(ValueError, match="'fork' is barn.fork.Fork already"):
        tools.register("fork")(Fork)
    assert tools["fork"].__module__ == "barn.fork"
