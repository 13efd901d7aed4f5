"""The reference is made from the code, and says what the code does."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "worker/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


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


def test_every_event_and_stage_of_a_start_is_in_the_reference() -> None:
    page = FILES["docs/reference/log.md"]
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    events = set(re.findall(r"""\.event\(\s*"([\w-]+)\"""", source))
    assert {"planned", "waiting", "cleaned", "not-packed"} <= events
    stages = set(re.findall(r"""\.(?:stage|part)\("([\w -]+)\"""", source))
    assert {"probe", "prove", "prove together"} <= stages
    for name in (*events, *stages):
        assert f"| `{name}" in page


def test_an_event_that_nobody_described_is_told_when_the_page_is_made() -> None:
    with pytest.raises(LookupError, match="surprise"):
        GENERATE._of({"stage": "begins"}, {"stage": [], "surprise": []}, "event")


def test_every_finding_of_the_doctor_is_on_its_page_and_no_other() -> None:
    from preheat.words.diagnosis import FindingCode, Harm

    page = (ROOT / "docs" / "how-to" / "doctor.md").read_text(encoding="utf-8")
    table = page.partition("## What it finds")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == [a.value for a in FindingCode]
    for harm in Harm:
        assert f"| {harm.value} |" in page


def test_every_tier_that_clean_gives_up_is_in_the_reference(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "preheat", "clean", "--dry-run", "--json")
    done = subprocess.run(
        (*command, "--store", str(tmp_path / "store")),
        cwd=tmp_path,
        env={
            **os.environ,
            **dict.fromkeys(("HOME", "TMPDIR", "PREHEAT_INTERNAL_SYSTEM"), str(tmp_path)),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    page = FILES["docs/reference/caches.md"]
    places = [
        page.index(f"| {each['name']} | {each['loss']} |")
        for each in json.loads(done.stdout)["tiers"]
    ]
    assert places == sorted(places)


def test_the_readme_is_a_landing_page_with_the_two_commands_on_it() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    for command in ("$ make demo ", "$ make test "):
        assert any(line.startswith(command) for line in lines)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in links(page):
            found = page.parent / target if target else page
            assert found.exists(), f"{page.relative_to(ROOT)}: {target}"
            if anchor and found.suffix == ".md":
                assert anchor in headings(found), f"{page.relative_to(ROOT)}: {target}#{anchor}"


def links(page: Path) -> list[tuple[str, str]]:
    """The page's links into this checkout: file and anchor, of which one may be empty."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text)
    return [(target, anchor) for target, anchor in found if "://" not in target]


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
