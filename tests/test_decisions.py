"""The pure decisions: what holds for any values, and what is said in so many words."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from preheat.decisions.compose import Composition
from preheat.decisions.explain import sentence
from preheat.decisions.fallback import best_lock
from preheat.decisions.graph import Graph
from preheat.decisions.identity import (
    layer_digest,
    manifest_digest,
    platform_digest,
    verdict_key,
)
from preheat.decisions.imports import groups, territory
from preheat.decisions.plan import Known, Planner, by_importance
from preheat.decisions.room import Load, Room
from preheat.decisions.size import Measure
from preheat.words.lock import Archive, Contents, Lock, Locked
from preheat.words.manifest import Condition, Manifest, Package
from preheat.words.plan import Action, Plan, Verdict
from preheat.words.platform import (
    Accelerator,
    Distribution,
    Gpu,
    RecordState,
    Volume,
)
from tests.support.detected import platform

MARKERS = {"python_version": "3.11", "sys_platform": "linux", "python_full_version": "3.11.7"}
MB = 1_000_000


def graph(overrides: dict[str, str] | None = None, **requires: tuple[str, ...]) -> Graph:
    """A graph over names without hyphens."""
    return Graph(requires=requires, environment=MARKERS, overrides=overrides or {})


def locked(name: str, version: str = "1.0", suffix: str = "-py3-none-any.whl") -> Locked:
    """A distribution of a lock; its hash is made of name and version."""
    filename = f"{name}-{version}{suffix}"
    sha256 = f"{name}{version}".encode().hex().ljust(64, "0")
    return Locked(
        name=name,
        version=version,
        archive=Archive(filename=filename, url=f"https://i/{filename}", sha256=sha256, size=1000),
    )


def lock(*distributions: Locked) -> Lock:
    """A lock of these."""
    return Lock(distributions=distributions, manifest="m", platform="p")


def contents(*files: tuple[str, int], requires: tuple[str, ...] = ()) -> Contents:
    """What an archive holds."""
    return Contents(files=files, requires=requires)


def wanted(name: str, *requires: str, required: bool = False) -> Package:
    """A package of a manifest that requires its own name, or what is given."""
    return Package(
        name=name,
        requires=requires or (name,),
        imports=(name.replace("-", "_"),),
        required=required,
    )


# -- who needs whom ------------------------------------------------------------------------------


def test_the_closure_holds_roots_and_all_that_they_need_breadth_first() -> None:
    found = graph(a=("b", "c>=1"), b=("d",), c=("d", "e"), z=("y",)).closure(["A"])
    assert found == ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    "text",
    [
        "Some.Name",
        "a>=1,<2 , !=1.5",
        "a==1.*",
        "a===1.0+cu130",
        "a (>=1)",
        "a[x]>=1",
        "a @ https://host/a.whl",
        "a>=1; python_version >= '3'",
        "a; python_version < '3'",
        "a ; python_version < '3' or platform_system == 'Linux'",
        "a; not a marker",
        "a>=",
        "a b",
        "-a",
        "",
    ],
)
def test_a_requirement_is_needed_where_the_grammar_reads_it_and_its_marker_holds(
    text: str,
) -> None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        expected: tuple[str, ...] = ()
    else:
        marker = requirement.marker
        holds = marker is None or marker.evaluate({**MARKERS, "extra": ""})
        expected = (canonicalize_name(requirement.name),) if holds else ()
    assert graph().closure([text]) == expected


def test_a_closure_over_a_circle_ends() -> None:
    assert graph(a=("b",), b=("c",), c=("a", "a[x]")).closure(["a"]) == ("a", "b", "c")


def test_extras_are_followed_only_where_they_are_asked_for() -> None:
    tree = graph(a=("b", "fast; extra == 'speed'", "c[deep]"), c=("d; extra == 'deep'",))
    assert tree.closure(["a"]) == ("a", "b", "c", "d")
    assert tree.closure(["a[speed]"]) == ("a", "b", "c", "fast", "d")


def test_an_extra_that_asks_for_another_extra_of_the_same_is_followed() -> None:
    tree = graph(a=("a[one]; extra == 'all'", "b; extra == 'one'"))
    assert tree.closure(["a[all]"]) == ("a", "b")


@pytest.mark.parametrize(
    ("marker", "asked", "follows"),
    [
        ("extra == 'Fast_Path'", "a[fast-path]", True),
        ("'fast' == extra", "a[fast]", True),
        ("extra == 'fast' or extra == 'slow'", "a[slow]", True),
        ("(extra == 'fast') or (extra == 'slow')", "a[slow]", True),
        ("extra == 'fast' and python_version >= '3'", "a[fast]", True),
        ("extra == 'fast' and python_version >= '3'", "a[slow]", False),
        ("extra == 'fast'", "a", False),
        ("sys_platform != 'extra == '", "a", True),
    ],
)
def test_what_an_extra_brings_is_told_whatever_way_its_marker_is_written(
    marker: str, asked: str, follows: bool
) -> None:
    tree = graph(a=(f"b; {marker}",))
    assert ("b" in tree.closure([asked])) is follows


def test_markers_that_do_not_hold_here_are_not_followed() -> None:
    tree = graph(a=("b; sys_platform == 'win32'", "c; python_version >= '3.10'"))
    assert tree.closure(["a", "d; python_version < '3'"]) == ("a", "c")


def test_what_is_excluded_is_left_out_with_all_that_only_it_needs() -> None:
    tree = graph(a=("ui", "b"), ui=("web",), b=("c",))
    assert tree.closure(["a"], excludes=["ui"]) == ("a", "b", "c")


def test_an_override_is_for_the_package_that_states_it_alone() -> None:
    shared = graph(a=("b",), b=("c",), c=())
    other = replace(shared, overrides={"c": "c; python_version < '3'"})
    for _ in range(2):
        assert shared.closure(["a"]) == ("a", "b", "c")
        assert other.closure(["a"]) == ("a", "b")


def test_an_override_replaces_every_mention() -> None:
    tree = graph(
        {"b": "b[x]; python_version < '3'", "c": "c[x]"}, a=("b", "c"), c=("d; extra=='x'",)
    )
    assert tree.closure(["a"]) == ("a", "c", "d")


def test_a_requirement_that_breaks_the_standard_is_passed_over() -> None:
    assert graph(a=("b (>=1.*)!!", "c")).closure(["a"]) == ("a", "c")


NAMES = st.sampled_from("abcdefgh")


@given(
    st.dictionaries(NAMES, st.lists(NAMES, max_size=4).map(tuple)),
    st.lists(NAMES, min_size=1, max_size=3),
    st.sets(NAMES, max_size=3),
)
def test_a_closure_is_closed_and_free_of_what_is_excluded(
    requires: dict[str, tuple[str, ...]], roots: list[str], excludes: set[str]
) -> None:
    tree = Graph(requires=requires, environment=MARKERS, overrides={})
    found = tree.closure(roots, excludes)
    assert len(set(found)) == len(found)
    assert not set(found) & excludes
    assert set(roots) - excludes <= set(found)
    for name in found:
        assert set(requires.get(name, ())) - excludes <= set(found)


# -- who owns which import -----------------------------------------------------------------------


def test_the_topmost_regular_directories_are_what_may_not_be_split() -> None:
    found = territory(
        ["google/cloud/speech/__init__.py", "google/cloud/speech/v1/__init__.py", "top.py"]
    )
    assert found.regular == {"google/cloud/speech"}
    assert found.directories >= {"google", "google/cloud", "google/cloud/speech"}


def test_metadata_launchers_and_stray_tests_are_nobodys_territory() -> None:
    found = territory(["a-1.dist-info/METADATA", "bin/a", "tests/__init__.py", "a.libs/b.so"])
    assert not found.regular
    assert not found.directories


def test_stubs_alone_make_no_regular_package() -> None:
    assert not territory(["space/__init__.pyi", "space/part.py"]).regular


def test_the_regular_package_that_two_would_split_is_named() -> None:
    one, two = territory(["x/__init__.py", "x/a.py"]), territory(["x/plugins/b.py"])
    assert one.shared_with(two) == two.shared_with(one) == "x"
    other = territory(["ns/b/__init__.py"])
    assert territory(["ns/a/__init__.py"]).shared_with(other) is None


PATHS = st.lists(
    st.builds(
        lambda parts, base: "/".join([*parts, base]),
        st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
        st.sampled_from(["__init__.py", "m.py", "n.txt"]),
    ),
    max_size=5,
)


@given(st.dictionaries(st.sampled_from("pqrst"), PATHS))
def test_any_two_that_share_a_regular_directory_land_in_one_group(
    files: dict[str, list[str]],
) -> None:
    places = {name: territory(paths) for name, paths in files.items()}
    found = groups(places)
    assert found.keys() == places.keys()
    for name, members in found.items():
        assert name in members
        assert all(found[member] == members for member in members)
    for one, two in combinations(places, 2):
        if places[one].shared_with(places[two]):
            assert found[one] == found[two]


@given(st.sets(st.sampled_from("pqrstu"), min_size=2), st.booleans())
def test_sharing_a_namespace_alone_joins_nobody(names: set[str], deep: bool) -> None:
    space = "ns/inner" if deep else "ns"
    places = {name: territory([f"{space}/{name}/__init__.py"]) for name in names}
    assert groups(places) == {name: (name,) for name in names}


# -- bytes ---------------------------------------------------------------------------------------

MEASURE = Measure(block=4096, directory=4096, python="3.11")
FILES = st.dictionaries(
    st.builds(
        lambda parts, base: "/".join([*parts, base]),
        st.lists(st.sampled_from(["a", "b"]), max_size=3),
        st.sampled_from(["x.py", "y.py", "z.so", "w.txt"]),
    ),
    st.integers(min_value=0, max_value=50_000),
    max_size=8,
).map(lambda files: contents(*files.items()))


def test_files_count_in_blocks_directories_once_and_bytecode_with_them() -> None:
    plain = replace(MEASURE, python=None)
    two = [contents(("a/x.txt", 1), ("a/b/y.txt", 4097)), contents(("a/z.txt", 0))]
    found = plain.footprint(two)
    assert (found.payload, found.disk, found.inodes) == (4098, (1 + 2) * 4096 + 2 * 4096, 3 + 2)
    module = [contents(("a/x.py", 100))]
    compiled = MEASURE.footprint(module)
    bare = plain.footprint(module)
    assert compiled.payload == bare.payload
    assert compiled.inodes == bare.inodes + 2  # the .pyc and its __pycache__
    assert compiled.disk == bare.disk + 4096 + 4096


def test_an_estimate_anywhere_marks_the_whole() -> None:
    known, guessed = contents(("a", 1)), Contents(files=(), requires=(), exact=False)
    assert MEASURE.footprint([known]).exact
    assert not MEASURE.footprint([known, guessed]).exact


@given(FILES, FILES)
def test_a_footprint_grows_and_never_beyond_the_sum_of_its_parts(
    one: Contents, two: Contents
) -> None:
    first, second = MEASURE.footprint([one]), MEASURE.footprint([two])
    both = MEASURE.footprint([one, two])
    assert both.payload == first.payload + second.payload
    assert max(first.disk, second.disk) <= both.disk <= first.disk + second.disk
    assert max(first.inodes, second.inodes) <= both.inodes <= first.inodes + second.inodes
    assert MEASURE.footprint([two, one]) == both


@given(FILES, st.sampled_from([512, 1024, 4096, 65536]))
def test_disk_is_whole_blocks_and_at_least_the_payload(one: Contents, block: int) -> None:
    found = Measure(block=block, directory=block, python=None).footprint([one])
    assert found.disk % block == 0
    assert found.disk >= found.payload


# -- room ----------------------------------------------------------------------------------------


def volume(role: str, device: int, free: int, inodes: int | None = None) -> Volume:
    """A filesystem with so much left."""
    return Volume(
        role=role,
        path=f"/{role}",
        device=device,
        kind="ext4",
        block=4096,
        directory=4096,
        free=free,
        inodes=inodes,
    )


def room(*free: int, devices: tuple[int, int, int] = (1, 1, 1), keep_free: int = 0) -> Room:
    """Store, cache and temp on these devices, with `free` by device."""
    roles = zip(("store", "cache", "temp"), devices, strict=True)
    return Room(
        volumes=[
            replace(volume(role, device, free[device - 1]), links=device == devices[1])
            for role, device in roles
        ],
        keep_free=keep_free,
    )


def test_without_hardlinks_the_engine_keeps_its_own_copy_on_the_same_disk() -> None:
    load = Load(disk=MB, inodes=10, files=9, directories=1, distributions=1)
    linked = room(10**9)
    copied = replace(linked, volumes=[replace(each, links=False) for each in linked.volumes])
    (one,), (two,) = linked.needs(load), copied.needs(load)
    assert two.bytes == one.bytes + MB
    assert two.inodes == one.inodes + 10


LOADS = st.builds(
    Load,
    disk=st.integers(0, 10**10),
    inodes=st.integers(0, 10**6),
    distributions=st.integers(0, 50),
    builds=st.integers(0, 3),
)


@given(
    LOADS,
    st.tuples(*[st.integers(0, 2 * 10**10)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.integers(0, 10**9),
)
def test_what_does_not_fit_is_never_accepted(
    load: Load, free: tuple[int, int, int], devices: tuple[int, int, int], keep_free: int
) -> None:
    place = room(*free, devices=devices, keep_free=keep_free)
    if not load.distributions or place.refusal(load) is not None:
        return
    assert load.disk + keep_free <= free[devices[0] - 1]
    if devices[1] != devices[0]:
        assert load.disk <= free[devices[1] - 1]
    for need in place.needs(load):
        assert need.bytes <= max(0, need.free - need.reserve)


@given(LOADS, LOADS)
def test_a_load_that_is_refused_stays_refused_with_more_on_top(one: Load, more: Load) -> None:
    place = room(5 * 10**9, keep_free=10**8)
    if place.refusal(one):
        assert place.refusal(one + more)


def test_roles_on_one_device_share_one_budget() -> None:
    (need,) = room(100 * MB).needs(Load(disk=10 * MB, distributions=1))
    assert need.role == "store, cache, temp"
    assert need.bytes >= 10 * MB
    apart = room(100 * MB, 100 * MB, devices=(1, 2, 2)).needs(Load(disk=10 * MB, distributions=1))
    assert [each.role for each in apart] == ["store", "cache, temp"]
    assert apart[0].bytes == 10 * MB
    assert apart[1].bytes > 10 * MB  # its own copy: no hardlink crosses filesystems


def test_the_refusal_names_the_volume_that_is_short() -> None:
    place = room(900 * MB, 10 * MB, devices=(1, 2, 2))
    refusal = place.refusal(Load(disk=50 * MB, distributions=1))
    assert refusal is not None
    assert "/cache" in refusal
    assert "10 MB free" in refusal


def test_inodes_that_are_short_refuse_what_bytes_would_allow() -> None:
    volumes = [volume(role, 1, 900 * MB, inodes=50) for role in ("store", "cache", "temp")]
    refusal = Room(volumes=volumes, keep_free=0).refusal(Load(disk=1, inodes=51, distributions=1))
    assert refusal is not None
    assert "/store" in refusal
    assert "50 inodes" in refusal


# -- the plan ------------------------------------------------------------------------------------


def planned(
    packages: list[Package],
    sizes: dict[str, int],
    free: int,
    known: Known | None = None,
) -> Plan:
    """The plan for packages of one wheel each, over an empty platform."""
    holds = {n: contents((f"{n}/__init__.txt", size)) for n, size in sizes.items()}
    composed = Composition(
        lock=lock(*map(locked, sorted(sizes))),
        contents=holds,
        platform=platform(),
        packages=tuple(packages),
        beneath={},
    )
    planner = Planner(
        composition=composed,
        fixed={},
        known=known or Known(),
        room=room(free),
        measure=MEASURE,
        bytecode="all",
    )
    return planner.plan(by_importance(tuple(packages)))


def test_a_small_package_is_taken_after_a_large_one_did_not_fit() -> None:
    packages = [wanted("small"), wanted("large"), wanted("tiny")]
    sizes = {"small": MB, "large": 500 * MB, "tiny": MB}
    found = planned(packages, sizes, free=100 * MB)
    assert [(s.package.name, s.action) for s in found.steps] == [
        ("small", Action.INSTALL),
        ("large", Action.SKIP),
        ("tiny", Action.INSTALL),
    ]
    assert "does not fit" in found.steps[1].reason
    assert found.ready
    assert all(need.fits for need in found.needs)


def test_required_packages_are_taken_first() -> None:
    packages = [wanted("first"), wanted("needed", required=True)]
    found = planned(packages, {"first": 60 * MB, "needed": 60 * MB}, free=100 * MB)
    assert [(s.package.name, s.action) for s in found.steps] == [
        ("needed", Action.INSTALL),
        ("first", Action.SKIP),
    ]
    assert found.ready


def test_a_required_package_that_does_not_fit_makes_the_plan_not_ready() -> None:
    assert not planned([wanted("a", required=True)], {"a": 500 * MB}, free=100 * MB).ready


def test_what_two_packages_need_is_counted_once_and_lies_in_the_first_ones_layer() -> None:
    packages = [wanted("a", "a", "shared"), wanted("b", "b", "shared")]
    found = planned(packages, {"a": MB, "b": MB, "shared": 40 * MB}, free=100 * MB)
    assert [[d.name for d in s.distributions] for s in found.steps] == [["a", "shared"], ["b"]]
    assert found.steps[1].over == (found.steps[0].layer,)


def test_a_layer_that_the_store_has_is_reused_and_costs_nothing() -> None:
    (before,) = planned([wanted("a")], {"a": 90 * MB}, free=100 * MB).steps
    known = Known(layers=frozenset({before.layer}))
    (after,) = planned([wanted("a")], {"a": 90 * MB}, free=1, known=known).steps
    assert (after.action, after.disk, after.download) == (Action.REUSE, 0, 0)


def test_a_failure_that_is_remembered_is_not_planned_again() -> None:
    package = wanted("a")
    (before,) = planned([package], {"a": MB}, free=100 * MB).steps
    key = verdict_key((before.layer,), package, platform())
    failed = Verdict(key=key, package="a", ok=False, reason="import a failed: E: no")
    known = Known(verdicts={key: failed})
    (after,) = planned([package], {"a": MB}, free=100 * MB, known=known).steps
    assert after.action is Action.SKIP
    assert after.reason == "failed before on this platform: import a failed: E: no"


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 200 * MB), min_size=1),
    st.integers(0, 400 * MB),
    st.sets(st.sampled_from("abcdef")),
)
def test_a_plan_always_fits_and_drops_nothing_that_would_have_fitted(
    sizes: dict[str, int], free: int, needed: set[str]
) -> None:
    packages = [wanted(name, required=name in needed) for name in sizes]
    found = planned(packages, sizes, free)
    assert all(need.fits for need in found.needs)
    taken: dict[str, int] = {}
    for step in found.steps:
        name = step.package.name
        if step.action is Action.SKIP:
            alone = planned([wanted(n) for n in (*taken, name)], {**taken, name: sizes[name]}, free)
            assert alone.steps[-1].action is Action.SKIP
        else:
            taken[name] = sizes[name]


# -- one sentence --------------------------------------------------------------------------------

HEAD = "error: No solution found when resolving dependencies\n  cause: "
# Recorded from uv 0.13.9, which was asked of an index of small wheels.
WALLS = {
    "torch": (
        "old",
        "Because all versions of old depend on torch==2.8.0 and torch==2.13.0+cpu, we can "
        "conclude that all versions of old cannot be used.\n         And because you require "
        "old, we can conclude that your requirements are unsatisfiable.",
        "old needs torch==2.8.0; the platform's torch 2.13.0+cpu is protected",
    ),
    "torch, of something deep": (
        "deep",
        "Because all versions of old depend on torch==2.8.0 and torch==2.13.0+cpu, we can "
        "conclude that all versions of old cannot be used.\n         And because all versions "
        "of deep depend on old and you require deep, we can conclude that your requirements "
        "are unsatisfiable.",
        "old needs torch==2.8.0; the platform's torch 2.13.0+cpu is protected",
    ),
    "not found": (
        "nowhere",
        "Because nowhere was not found in the package registry and you require nowhere, we can "
        "conclude that your requirements are unsatisfiable.",
        "nowhere is not on the configured index",
    ),
    "no wheels": (
        "source",
        "Because source==1.0 has no usable wheels and only source==1.0 is available, we can "
        "conclude that all versions of source cannot be used.\n         And because you require "
        "source, we can conclude that your requirements are unsatisfiable.\n\nhint: Wheels are "
        "required for `source` because building from source is disabled for `source` (i.e., "
        "with `--no-build-package source`)",
        "there is no ready wheel of source for this platform, and building it here is not "
        "allowed (build = true in the manifest allows it)",
    ),
    "wheels for others": (
        "alien",
        "Because alien==1.0 has no wheels with a matching Python implementation tag (e.g., "
        "`cp311`) and only alien==1.0 is available, we can conclude that all versions of alien "
        "cannot be used.\n         And because you require alien, we can conclude that your "
        "requirements are unsatisfiable.\n\nhint: You require CPython 3.11 (`cp311`), but we "
        "only found wheels for `alien` (v1.0) with the following Python implementation tag: "
        "`cp27`",
        "no wheel of alien is for this platform: none has its Python implementation tag",
    ),
    "Python": (
        "future",
        "Because the current Python version (3.11.7) does not satisfy Python>=3.14 and "
        "future==1.0 depends on Python>=3.14, we can conclude that future==1.0 cannot be "
        "used.\n         And because only future==1.0 is available and you require future, we "
        "can conclude that your requirements are unsatisfiable.",
        "future==1.0 needs Python >=3.14; this is Python 3.11.7",
    ),
    "conflict": (
        "wantstwo",
        "Because all versions of wantstwo depend on lib>=2 and all versions of wantsone depend "
        "on lib<2, we can conclude that all versions of wantsone and all versions of wantstwo "
        "are incompatible.\n         And because you require wantsone and wantstwo, we can "
        "conclude that your requirements are unsatisfiable.",
        "wantstwo needs lib>=2, which does not go with the rest",
    ),
    "bound": (
        "lib",
        "Because only lib<=2.0 is available and you require lib>=9, we can conclude that your "
        "requirements are unsatisfiable.",
        "lib>=9 cannot be had: the configured index has lib<=2.0",
    ),
}


@pytest.mark.parametrize("kind", WALLS)
def test_a_wall_of_the_solver_becomes_one_short_sentence(kind: str) -> None:
    package, wall, expected = WALLS[kind]
    said = sentence(HEAD + wall, package, {"torch": "2.13.0+cpu"})
    assert said == expected
    assert len(said) < 150


def test_a_torch_that_the_platform_lacks_is_said_to_be_lacking() -> None:
    wall = (
        "Because all versions of old depend on torch<0, which does not allow any versions and "
        "you require old, we can conclude that your requirements are unsatisfiable."
    )
    said = sentence(HEAD + wall, "old", {"torch": None})
    assert said == "old needs torch, which this platform does not provide"


def test_a_build_that_failed_is_told_with_its_own_last_words() -> None:
    wall = (
        "error: Failed to build `flash==1.0`\n  cause: The build backend returned an error\n"
        "  cause: Call to `setuptools.build_meta` failed (exit status: 1)\n\n"
        "         [stderr]\n         no compiler here\n\nhint: Build failures usually indicate"
    )
    assert sentence(wall, "flash", {}) == (
        "flash==1.0 does not build from its source: no compiler here"
    )


@given(st.text(max_size=2000))
def test_any_wall_at_all_becomes_one_line_of_bounded_length(wall: str) -> None:
    said = sentence(wall, "a", {"torch": "2.0"})
    assert said
    assert "\n" not in said


def test_an_unknown_wall_is_quoted_in_short() -> None:
    said = sentence("error: " + "words " * 500, "a", {})
    assert said.startswith("no versions satisfy a: words words")
    assert len(said) < 400


# -- identity ------------------------------------------------------------------------------------


@given(st.permutations([("a", "1"), ("b", "2"), ("c", "3")]))
def test_a_platforms_digest_does_not_depend_on_the_order_of_its_distributions(
    order: list[tuple[str, str]],
) -> None:
    assert platform_digest(platform(*order)) == platform_digest(
        platform(("a", "1"), ("b", "2"), ("c", "3"))
    )


def test_a_platforms_digest_changes_with_any_distribution_and_not_with_leftovers() -> None:
    one = platform(("numpy", "2.4.6"))
    assert platform_digest(one) != platform_digest(platform(("numpy", "2.4.7")))
    assert platform_digest(one) != platform_digest(platform())
    left = Distribution(
        name="x", version=None, location="/site", metadata="", state=RecordState.NAMELESS
    )
    assert platform_digest(replace(one, distributions=(*one.distributions, left))) == (
        platform_digest(one)
    )


@given(st.permutations(["a", "b", "c"]))
def test_a_layers_digest_does_not_depend_on_the_order_of_its_archives(order: list[str]) -> None:
    assert layer_digest(map(locked, order), platform(), bytecode="all") == layer_digest(
        map(locked, "abc"), platform(), bytecode="all"
    )


def test_a_layers_digest_changes_with_what_is_in_it_and_how_it_is_built() -> None:
    made = [
        layer_digest([locked("a")], platform(), bytecode="all"),
        layer_digest([locked("a")], platform(), bytecode="none"),
        layer_digest([locked("a", "1.1")], platform(), bytecode="all"),
        layer_digest([locked("a", suffix=".tar.gz")], platform(torch="2.0"), bytecode="all"),
    ]
    assert len(set(made)) == len(made)
    # A ready wheel is the same beside any torch; what is built from source is not.
    assert layer_digest([locked("a")], platform(torch="2.0"), bytecode="all") == made[0]
    other = layer_digest([locked("a", suffix=".tar.gz")], platform(torch="2.1"), bytecode="all")
    assert other != made[3]


def test_a_digest_is_the_same_in_every_process_and_version() -> None:
    assert layer_digest([locked("a")], platform(), bytecode="all") == (
        "f1d554cf6b508a9bcf60ac1aceae1303"
    )


def test_a_verdicts_key_depends_on_the_order_of_layers_the_check_and_the_gpu() -> None:
    package, here = wanted("a"), platform(("numpy", "2.0"))
    gpu = Accelerator(driver="570", gpus=(Gpu(name="H200", compute_capability="9.0", memory=1),))
    keys = [
        verdict_key(("x", "y"), package, here),
        verdict_key(("y", "x"), package, here),
        verdict_key(("x",), package, here),
        verdict_key(("x", "y"), package, platform(("numpy", "2.1"))),
        verdict_key(("x", "y"), package, replace(here, accelerator=gpu)),
        verdict_key(("x", "y"), replace(package, check="assert a"), here),
        verdict_key(("x", "y"), replace(package, imports=("b",)), here),
        verdict_key(("x", "y"), package, here.without(["numpy"], RecordState.INCOMPLETE)),
    ]
    assert len(set(keys)) == len(keys)
    assert verdict_key(["x", "y"], replace(package, required=True), here) == keys[0]


def test_a_manifests_digest_is_of_what_is_resolved_alone() -> None:
    one = wanted("a")
    base = manifest_digest(Manifest(package=(one,)))
    for same in (
        replace(one, check="a.b"),
        replace(one, required=True),
        replace(one, when=Condition(accelerator="cuda")),
    ):
        assert manifest_digest(Manifest(package=(same,))) == base
    for other in (
        replace(one, requires=("a>1",)),
        replace(one, exclude=("b",)),
        replace(one, override=("b<2",)),
        replace(one, build_isolation=False),
    ):
        assert manifest_digest(Manifest(package=(other,))) != base
    assert manifest_digest(Manifest(package=(one,), protected=("numpy",))) != base


# -- the best of the old -------------------------------------------------------------------------


def test_the_lock_that_serves_the_most_important_packages_is_best() -> None:
    one, two, three = wanted("one"), wanted("two"), wanted("three")
    low = lock(locked("two"), locked("three"))
    high = lock(locked("one"))
    assert best_lock([one, two, three], platform(), [low, high]) == (high, (two, three))


def test_among_equals_the_newest_lock_wins() -> None:
    new, old = lock(locked("one", "2.0")), lock(locked("one", "1.0"))
    assert best_lock([wanted("one")], platform(), [new, old]) == (new, ())


def test_a_lock_with_another_version_does_not_serve() -> None:
    assert best_lock([wanted("one", "one>=2")], platform(), [lock(locked("one"))]) is None


def test_what_the_platform_has_need_not_be_in_the_lock() -> None:
    package = wanted("one", "one", "numpy>=2")
    kept = lock(locked("one"))
    assert best_lock([package], platform(("numpy", "2.4")), [kept]) == (kept, ())
    assert best_lock([package], platform(), [kept]) is None


def test_without_any_lock_there_is_none() -> None:
    assert best_lock([wanted("one")], platform(), []) is None
