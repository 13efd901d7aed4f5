"""The reference is made from the code, and says what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def _generator() -> ModuleType:
    """docs/generate.py, which is a script and no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()
FILES: dict[str, str] = GENERATE.generated()


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_reference_page_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == FILES[path], "run: python docs/generate.py"


def test_reference_pages_are_written_into_a_checkout(tmp_path: Path) -> None:
    GENERATE.write(tmp_path)
    for path, text in FILES.items():
        assert (tmp_path / path).read_text(encoding="utf-8") == text


def test_every_exit_status_of_an_error_is_in_the_reference() -> None:
    from preheat.words import errors

    page = FILES["docs/reference/command-line.md"]
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.PreheatError):
            row = next(line for line in page.splitlines() if f"`{kind.code}`" in line)
            assert row.startswith(f"| {kind.exit_status} |")


def test_every_command_and_option_is_in_the_reference() -> None:
    from preheat.cli.main import main

    page = FILES["docs/reference/command-line.md"]
    for name, command in main.commands.items():
        assert f"## `preheat {name}`" in page
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert f"`{parameter.opts[0]}`" in page


def test_every_public_name_is_in_the_reference() -> None:
    import preheat

    for name in preheat.__all__:
        assert f"## `preheat.{name}`" in FILES["docs/reference/api.md"]


def test_the_schema_of_the_report_requires_what_scripts_rely_on() -> None:
    schema = json.loads(FILES["src/preheat/report.schema.json"])
    promised = {"schema", "ready", "warm", "seconds", "packages", "capabilities", "paths"}
    assert {*promised, "volumes"} <= set(schema["required"])
    package = {"name", "status", "version", "reason", "layer", "bytes_predicted", "bytes_actual"}
    assert package <= set(schema["$defs"]["PackageReport"]["required"])


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
