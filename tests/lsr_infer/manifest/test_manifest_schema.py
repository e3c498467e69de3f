"""The JSON Schema in the package describes what `Manifest` writes, member by member, and refuses the rest."""

import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings

from lsr_infer.manifest import Manifest
from tests.lsr_infer.manifest.test_manifest import FULL, manifests, places

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra dev)")
SCHEMA: dict[str, Any] = json.loads((files("lsr_infer") / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@settings(max_examples=60)
@given(manifests)
def test_every_manifest_is_valid(manifest: Manifest) -> None:
    VALIDATOR.validate(json.loads(manifest.to_json()))


def described(schema: dict[str, Any], document: Any, path: str = "") -> list[str]:
    """Members of a document that the schema has no word for."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "oneOf" in schema:
        schema = next(
            s
            for s in schema["oneOf"]
            if jsonschema.Draft202012Validator({**s, "$defs": SCHEMA["$defs"]}).is_valid(document)
        )
        return described(schema, document, path)
    if not isinstance(document, dict) or "additionalProperties" in schema:
        return []
    missing = [f"{path}.{key}" for key in document if key not in schema["properties"]]
    return missing + [
        line for key, value in document.items() if key in schema["properties"]
        for line in described(schema["properties"][key], value, f"{path}.{key}")
    ]  # fmt: skip


def test_no_member_is_undescribed() -> None:
    assert described(SCHEMA, json.loads(FULL.to_json())) == []


@pytest.mark.parametrize(
    "place", [place for place in places(json.loads(FULL.to_json())) if "subsets" not in place], ids=".".join
)
def test_a_wrong_type_is_invalid(place: tuple[str, ...]) -> None:
    document = json.loads(FULL.to_json())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = [[None]]
    assert not VALIDATOR.is_valid(document)
