"""Tests stand where the code stands: whoever changes a module of the engine finds its tests by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.meta.source import MODULES, PACKAGE, REPO

TESTS = REPO / "tests"
UNIT = TESTS / "unit"
ENGINE = f"{PACKAGE}.ops."
# Modules of the engine without a test file of their name, and the file whose tests go through them.
# Such a module is one step of an operation, and is tested by what the operation leaves on disk or prints.
COVERED_BY = {
    "exchange.address": "unit/ops/exchange/test_hf_cache.py",
    "exchange.copies": "unit/ops/exchange/test_adopt.py",
    "exchange.elsewhere": "unit/ops/exchange/test_hf_cache.py",
    "exchange.exporting": "unit/ops/exchange/test_ollama.py",
    "exchange.identify": "unit/ops/exchange/test_adopt.py",
    "exchange.images.found": "unit/ops/exchange/images/test_pulling.py",
    "exchange.images.making": "unit/ops/exchange/images/test_pushing.py",
    "exchange.importing": "unit/ops/exchange/test_hf_cache.py",
    "exchange.knowledge": "unit/ops/exchange/test_adopt.py",
    "fetching.answers": "faults/test_http_faults.py",
    "fetching.begun": "faults/test_broken_lines.py",
    "fetching.queue": "cli/test_queue_and_offline.py",
    "fetching.transfer": "faults/test_http_faults.py",
    "inspecting.changed_bytes": "unit/ops/inspecting/test_diff.py",
    "inspecting.figures": "unit/ops/inspecting/test_page.py",
    "inspecting.pairs": "unit/ops/inspecting/test_diff.py",
    "copies.second": "unit/ops/copies/test_slim.py",
    "inspecting.picture": "unit/ops/inspecting/test_page.py",
    "inspecting.readers": "unit/ops/inspecting/test_inspect.py",
    "inspecting.stored_file": "unit/ops/inspecting/test_contents.py",
    "inspecting.tensors": "unit/ops/inspecting/test_diff.py",
    "installing.candidates": "unit/ops/installing/test_outdated.py",
    "installing.checkout": "unit/ops/installing/test_update.py",
    "installing.pin": "unit/ops/installing/test_update.py",
    "local.import_export": "unit/ops/publishing/test_sources.py",
    "publishing.amend": "cli/test_publisher_cli.py",
    "publishing.lint": "cli/test_publisher_cli.py",
    "publishing.new_deltas": "unit/ops/publishing/test_optimize.py",
    "publishing.publish": "unit/ops/publishing/test_republish.py",
    "publishing.skips": "unit/ops/publishing/test_optimize.py",
    "publishing.tree": "unit/ops/publishing/test_registry_folder.py",
    "querying.catalogue": "cli/test_cli_commands.py",
    "querying.compat": "cli/test_update_cli.py",
    "querying.history": "cli/test_cli_commands.py",
    "querying.inventory": "cli/test_cli_commands.py",
    "querying.paths": "unit/ops/session/test_stored.py",
    "querying.keeping": "unit/ops/upkeep/test_gc_policies.py",
    "copies.space": "unit/ops/querying/test_storage.py",
    "querying.status": "cli/test_stored_cli.py",
    "querying.usage": "cli/test_stored_cli.py",
    "session.clock": "unit/ops/installing/test_auto_update.py",
    "session.connections": "unit/settings/test_network.py",
    "session.counting": "unit/ops/querying/test_statistics.py",
    "session.mark": "faults/test_corruption.py",
    "session.model_files": "unit/ops/session/test_split.py",
    "session.registries": "faults/test_rolledback.py",
    "session.sources": "unit/settings/test_network.py",
    "querying.standing": "unit/ops/installing/test_outdated.py",
    "checking.doctor_disk": "unit/ops/checking/test_doctor.py",
    "checking.findings": "faults/test_corruption.py",
    "checking.fsck": "faults/test_corruption.py",
    "upkeep.gc": "unit/ops/upkeep/test_gc_packs.py",
    "upkeep.gc_plan": "unit/ops/upkeep/test_gc_packs.py",
    "upkeep.repack": "unit/ops/upkeep/test_gc_packs.py",
    "checking.repair": "unit/ops/upkeep/test_gc_packs.py",
    "checking.repair_records": "faults/test_corruption.py",
    "upkeep.retain": "unit/ops/upkeep/test_retention.py",
    "upkeep.waste": "unit/ops/upkeep/test_gc_forecast.py",
}
ENGINE_MODULES = {
    module.name.removeprefix(ENGINE)
    for module in MODULES
    if module.name.startswith(ENGINE) and not module.is_package
}


def own_test(module: str) -> Path:
    """The test file of a module's name, whether it exists or not."""
    *folders, name = module.split(".")
    return UNIT.joinpath("ops", *folders, f"test_{name}.py")


@pytest.mark.parametrize("module", sorted(ENGINE_MODULES))
def test_a_module_of_the_engine_has_a_test_file(module: str) -> None:
    covering = TESTS / COVERED_BY[module] if module in COVERED_BY else own_test(module)
    assert covering.is_file(), f"add {covering.relative_to(REPO)}, or a row to COVERED_BY"


def test_the_list_of_covering_files_is_current() -> None:
    gone = COVERED_BY.keys() - ENGINE_MODULES
    assert gone == set(), "no such module: remove the row, or give it the module's new name"
    needless = [module for module in COVERED_BY if own_test(module).is_file()]
    assert needless == [], "has a test file of its own: remove the row"


def test_the_folders_of_unit_tests_are_those_of_the_package() -> None:
    folders = {path.parent.relative_to(UNIT) for path in UNIT.rglob("test_*.py")}
    assert [str(folder) for folder in sorted(folders) if not (REPO / PACKAGE / folder).is_dir()] == []
