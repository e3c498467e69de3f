"""YAML from strangers: what explodes, repeats or is nonsense is refused at once, wherever YAML is read."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lsr_infer.errors import InputError
from lsr_train.comparison.spec import read_comparison
from lsr_train.config.plain_yaml import load_yaml
from lsr_train.config.recipes import config_from_text, read_document, to_yaml
from lsr_train.config.run import Config
from lsr_train.data.classes_file import load_classes


def bomb(first: str, repeat: Callable[[int], str], levels: int = 10) -> str:
    return "".join([f"b0: &b0 {first}\n", *(f"b{n + 1}: &b{n + 1} {repeat(n)}\n" for n in range(levels))])


HOSTILE = {
    "lists": bomb("[x,x,x,x,x,x,x,x,x]", lambda n: f"[{','.join([f'*b{n}'] * 9)}]"),
    "mappings": bomb("{a: x}", lambda n: "{" + ",".join(f"k{k}: *b{n}" for k in range(9)) + "}"),
    "merged mappings": bomb("{a: x}", lambda n: "{<<: [" + ",".join([f"*b{n}"] * 9) + "]}"),
    "keys": "b0: &b0 [x,x]\n" + "".join(f"b{n + 1}: &b{n + 1} {{? *b{n} : *b{n}}}\n" for n in range(25)),
    "pairs": bomb("x", lambda n: f"[*b{n}, *b{n}]", 40),
    "a long text": f"a: &a {'x' * 2000}\nb: [{','.join(['*a'] * 2000)}]\n",
    "a circle": "a: &a [1, *a]\n",
    "a circle of mappings": "a: &a {b: {c: *a}}\n",
    "a number without end": f"a: 0x{'f' * 100_000}\n",
    "a number in sixties": f"a: 1{':59' * 5000}\n",
    "nesting without end": "[" * 5000,
    "a key twice": "a: 1\nb: 2\na: 3\n",
    "a date that is none": "a: 2001-99-99\n",
    "a tag that does not fit": "a: !!bool perhaps\n",
    "a time that is none": "a: !!timestamp soon\n",
    "an empty number": "a: !!int ''\n",
}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the nodes that PyYAML composes of a text, and the objects that it constructs of them."""
    counts: Counter[str] = Counter()

    def count(owner: type, method: str) -> None:
        original = getattr(owner, method)

        def counting(*arguments: Any, **options: Any) -> Any:
            counts[method] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, method, counting)

    count(yaml.composer.Composer, "compose_node")
    count(yaml.constructor.BaseConstructor, "construct_object")
    return counts


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_at_once(name: str, nodes: Counter[str]) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(HOSTILE[name])
    assert 3 <= nodes["compose_node"] <= 600
    assert nodes["construct_object"] <= 3


@pytest.mark.parametrize("read", [load_classes, read_document, lambda path: read_comparison(str(path))])
@pytest.mark.parametrize("name", ["lists", "merged mappings", "a circle", "a key twice", "a tag that does not fit"])
def test_every_reader_refuses_with_one_sentence(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    file = tmp_path / "hostile.yaml"
    file.write_text(HOSTILE[name], encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError):
        config_from_text(HOSTILE[name], str(file))


@pytest.mark.parametrize(("name", "read"), [("aliases_classes", load_classes), ("aliases_recipe", read_document)])
def test_the_reported_files_are_refused_at_once(
    name: str, read: Callable[[Path], Any], shared: Callable[[str], Path], nodes: Counter[str]
) -> None:
    with pytest.raises(InputError, match="aliases written out"):
        read(shared(f"data/cases/hostile/{name}.yaml"))
    assert 60 < nodes["compose_node"] < 70
    assert nodes["construct_object"] == 0


def test_aliases_and_merged_keys_of_plain_files_are_read() -> None:
    text = "a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 3}\nc: [*a, *a]\nd: 0x1F\ne: 1.0e-4\n"
    value = load_yaml(text)
    assert value["b"] == {"x": 3, "y": [1, 2]}
    assert value["c"] == [value["a"], value["a"]]
    assert (value["d"], value["e"]) == (31, 1e-4)
    assert load_yaml("") is None
    config = Config()
    assert config_from_text(to_yaml(config), "config.yaml") == config


def test_a_class_may_have_every_id_there_is(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    entry = {"name": "all", "color": [1, 2, 3], "ids": list(range(0xFFFF))}
    file.write_text(yaml.safe_dump({"classes": [entry]}, default_flow_style=True), encoding="utf-8")
    assert len(load_classes(file).id_map.labels) == 0xFFFF
