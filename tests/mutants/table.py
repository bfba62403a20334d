"""The mutants: text of the package, what stands there without a check, and the tests that see it.

The text is looked for in the whole package and must stand in one place, so that modules may move.  A
change to the text itself is a change here: `make test` says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`before` is exact text of one module, `after` what replaces it; one of `tests` must fail."""

    name: str
    before: str
    after: str
    tests: tuple[str, ...]


# Where the mutants import from.
_CODEC = "yarnstore.core.codec"

_FALSE = "tests/faults/test_false_witness.py"
_LOST = "tests/faults/test_nothing_is_lost.py"
_SYNCED = "tests/faults/test_crash.py::test_everything_is_synced_before_it_counts"
_SLIM = "tests/unit/ops/copies/test_slim.py"
_OLDER = "tests/unit/ops/copies/test_older_versions.py"
_PROOF = "tests/unit/ops/copies/test_proof.py::test_a_sound_file_is_not_deleted_for_a_damaged_pack"
_HELD = "tests/unit/store/test_held.py"

MUTANTS = (
    Mutant(
        "numpy's order forgets the greatest key",
        "            edge[-1] = tile.size\n",
        "",
        ("tests/property/test_kernels.py::test_the_greatest_key_has_a_run",),
    ),
    Mutant(
        "a base that no delta leads back to is not hashed",
        "    chunks.prove_others()\n",
        "",
        (
            "tests/unit/ops/publishing/test_damaged_bases.py"
            "::test_a_damaged_base_is_noticed_where_no_delta_leads_back_to_it",
        ),
    ),
    Mutant(
        "folder of a new reflog not synced",
        "            native.sync(fd)\n        finally:\n            os.close(fd)\n    if is_new:\n",
        "            native.sync(fd)\n        finally:\n            os.close(fd)\n    if False:\n",
        (f"{_SYNCED}[checkout]",),
    ),
    Mutant(
        "folders of a view not synced before its rename",
        "        for folder in folders:\n            fsio.sync_dir(folder)\n",
        "",
        (f"{_SYNCED}[checkout]",),
    ),
    Mutant(
        "index published before its pack",
        "        fsio.ensure_dir(folder.packs)\n"
        "        file.publish(folder.pack(index.pack))\n"
        "    write_index(folder, index)\n",
        "        fsio.ensure_dir(folder.packs)\n"
        "        write_index(folder, index)\n"
        "        file.publish(folder.pack(index.pack))\n",
        (f"{_SYNCED}[fetch]",),
    ),
    Mutant(
        "pack dropped before its index",
        "    trash.discard(layout.pack_folder.index(pack), layout.trash)\n"
        "    trash.discard(layout.pack_folder.pack(pack), layout.trash)\n",
        "    trash.discard(layout.pack_folder.pack(pack), layout.trash)\n"
        "    trash.discard(layout.pack_folder.index(pack), layout.trash)\n",
        (f"{_SYNCED}[gc]",),
    ),
    Mutant(
        "packs dropped before refs in gc",
        "        for name in self.versions:\n            refs.remove_version(name)\n",
        "        for pack in self.dead_packs:\n"
        "            drop_pack(self.session, pack)\n"
        "        for name in self.versions:\n            refs.remove_version(name)\n",
        ("tests/faults/test_failing_disk.py::test_gc_deletes_refs_before_what_they_name",),
    ),
    Mutant(
        "packs dropped for files that nobody read",
        "        return not check or chunks.is_at(",
        "        return True or chunks.is_at(",
        ("tests/unit/ops/copies/test_slim.py::test_a_damaged_file_backs_nothing",),
    ),
    Mutant(
        "error of a background sync swallowed",
        "        if self._sync_error is not None:\n            raise self._sync_error\n",
        "",
        ("tests/faults/test_failing_disk.py::test_a_background_sync_that_fails_is_an_error",),
    ),
    Mutant(
        "short write of a line of the reflog",
        "    while view:\n        done = native.pwrite(fd, view, offset)\n"
        "        view, offset = view[done:], offset + done\n",
        "    offset += native.pwrite(fd, view, offset)\n",
        ("tests/faults/test_failing_disk.py::test_a_line_of_the_log_that_is_written_in_part_moves_nothing",),
    ),
    Mutant(
        "fetch without preflight",
        "        fsread.require_space(layout.root, pack_bytes + files - there, layout.reserve)\n",
        "        _ = pack_bytes + files - there\n",
        ("tests/faults/test_failing_disk.py::test_a_download_that_does_not_fit_is_refused_before_it_begins",),
    ),
    Mutant(
        "entry of another chunk taken from a registry",
        "    if entry.chunk_id != place.chunk_id:\n",
        "    if False:\n",
        (f"{_FALSE}::test_an_index_that_points_at_another_chunk_costs_a_request_and_no_more",),
    ),
    Mutant(
        "entry of another chunk taken from a pack of the store",
        "        if entry.chunk_id != chunk_id:\n",
        "        if False:\n",
        (f"{_FALSE}::test_a_chunk_whose_place_holds_another_counts_as_absent_when_it_is_imported",),
    ),
    Mutant(
        "manifest of another version taken",
        "    if found != offer.name:\n",
        "    if False:\n",
        (f"{_FALSE}::test_the_manifest_of_another_version_is_refused",),
    ),
    Mutant(
        "checksum of a registry not compared with the manifest",
        "    if promised is not None and Sha256.parse(promised) != Sha256.parse(actual):\n",
        "    if False:\n",
        (f"{_FALSE}::test_a_checksum_that_is_not_the_manifests_is_refused",),
    ),
    Mutant(
        "content changed under a version",
        "        refuse_changed(session, offer.source, offer.name, content_of(manifest), manifest.digest)\n",
        "",
        (f"{_FALSE}::test_other_content_under_a_version_that_is_here_is_refused",),
    ),
    Mutant(
        "delta from a registry taken without a hash",
        "            base = self.read_base(entry.base)\n        return decode_entry(entry, base)\n",
        "            base = self.read_base(entry.base)\n"
        f"        return decode_entry(entry) if base is None else __import__({_CODEC!r}, fromlist=['']"
        ").decode_payload(entry, base)\n",
        (f"{_FALSE}::test_a_delta_that_makes_another_chunk_is_replaced_by_full_packs",),
    ),
    Mutant(
        "part of a transposed tensor taken without a hash",
        "        return verified(entry.chunk_id, self.read(part, entry.plain_bytes))\n",
        "        return self.read(part, entry.plain_bytes)\n",
        ("tests/property/test_transposed.py::test_a_part_with_another_hash_is_refused",),
    ),
    Mutant(
        "delta of the store taken without a hash",
        "        return decode_entry(entry, self.read_base(entry.base, depth=depth + 1))\n",
        f"        return __import__({_CODEC!r}, fromlist=['']).decode_payload("
        "entry, self.read_base(entry.base, depth=depth + 1))\n",
        (f"{_FALSE}::test_a_stored_delta_that_makes_another_chunk_counts_as_absent_when_it_is_imported",),
    ),
    Mutant(
        "base of a delta taken without a hash",
        "        return self.read(chunk_id, self.row_of(chunk_id), depth=depth)\n",
        f"        return __import__({_CODEC!r}, fromlist=['']).decode_payload("
        "self.read_entry(self.row_of(chunk_id)))\n",
        (f"{_FALSE}::test_repack_makes_no_delta_against_a_base_that_is_another_chunk",),
    ),
    Mutant(
        "deltas not decoded before they are published",
        "    _prove(entry, base)\n",
        "",
        (
            "tests/unit/core/test_codec.py"
            "::test_a_delta_that_does_not_decode_to_its_chunk_is_caught[encode_delta_planes]",
        ),
    ),
    Mutant(
        "gc ignores what is being fetched",
        "        return [*self.live.values(), *self.partial]\n",
        "        return [*self.live.values()]\n",
        (f"{_LOST}::test_gc_leaves_what_came_of_a_version_that_is_being_fetched",),
    ),
    Mutant(
        "gc without its second mark",
        "        while needed := _packs_needed(indexes, ids, doomed, beside):\n"
        "            doomed -= needed\n",
        "",
        (f"{_LOST}::test_gc_drops_no_chunk_that_a_version_needs_which_comes_meanwhile",),
    ),
    Mutant(
        "quarantine emptied at once",
        "_QUARANTINE_S = 24 * 3600\n",
        "_QUARANTINE_S = 0\n",
        (f"{_LOST}::test_what_a_repair_replaces_is_kept_also_after_gc[pack]",),
    ),
    Mutant(
        "repair removes what it cannot use",
        "        trash.move_aside(path, self._layout.trash)\n",
        "        fsio.remove_tree(path)\n",
        (f"{_LOST}::test_what_a_repair_replaces_is_kept_also_after_gc[held range]",),
    ),
    Mutant(
        "repair overwrites what it replaces",
        "        trash.keep_copy(path, self._layout.trash)\n",
        "        _ = path\n",
        (f"{_LOST}::test_what_a_repair_replaces_is_kept_also_after_gc",),
    ),
    Mutant(
        "source changed while it is read",
        "        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or (\n"
        "            size != after.st_size\n"
        "        ):\n",
        "        if False:\n",
        (f"{_LOST}::test_a_source_that_changes_while_it_is_read_is_refused",),
    ),
    Mutant(
        "file of an older version deleted for a pack that nobody read",
        "    if thin.frees_files and forget_damaged(session, thin.roots, thin.own_files):\n",
        "    if False:\n",
        (f"{_PROOF}[thin]",),
    ),
    Mutant(
        "file of a deleted version deleted for a pack that nobody read",
        "        forgot |= forget_damaged(session, plan.roots, plan.needed_files | plan.views.files)\n",
        "        forgot = False\n",
        (f"{_PROOF}[deleted]",),
    ),
    Mutant(
        "pack deleted for another that nobody read",
        "        forgot = forget_rotten_doubles(session)\n",
        "        forgot = False\n",
        ("tests/unit/ops/copies/test_proof.py::test_of_two_packs_the_one_with_sound_bytes_stays[False]",),
    ),
    Mutant(
        "file deleted for another that nobody read",
        "        claimed = np.setdiff1d(claimed, proven)\n",
        "        claimed = NO_IDS\n",
        (f"{_SLIM}::test_a_file_goes_only_once_what_it_shares_was_read_in_one_that_stays",),
    ),
    Mutant(
        "packs dropped for a file that changed since it was read",
        "        return now is not None and (now.st_size, now.st_mtime_ns, now.st_ino) == (\n"
        "            then.st_size,\n"
        "            then.st_mtime_ns,\n"
        "            then.st_ino,\n"
        "        )\n",
        "        return now is not None and bool(then)\n",
        (f"{_SLIM}::test_a_file_that_changed_since_it_was_read_backs_nothing",),
    ),
    Mutant(
        "packs dropped before the store has format 2",
        "            fsio.sync_dir(layout.files)  # a killed install may have left unsynced names\n"
        "            layout.rely_on_files()\n",
        "            fsio.sync_dir(layout.files)\n",
        (f"{_SLIM}::test_a_store_has_format_2_before_its_first_pack_goes",),
    ),
    Mutant(
        "a pack with encoding 5 in a store that earlier releases open",
        "            folder.before_mapped()\n",
        "            pass\n",
        (f"{_OLDER}::test_a_store_has_format_4_before_a_pack_that_needs_it",),
    ),
    Mutant(
        "format 2 in place of a later one",
        "            if self.format not in enough:\n",
        "            if wanted:\n",
        (f"{_OLDER}::test_two_processes_that_raise_the_format_end_with_the_later_one",),
    ),
    Mutant(
        "imports without a second copy",
        '    return [item for item in manifests if policy == "always" or not is_given_back(session, item)]\n',
        '    return [item for item in manifests if policy == "always" or not item]\n',
        (f"{_SLIM}::test_what_no_registry_gives_back_keeps_its_packs[imports]",),
    ),
    Mutant(
        "second copies after the first deletion",
        "        expected = _copy_first(session, policy, expected)\n",
        "        _ = expected\n",
        (f"{_SLIM}::test_the_second_copy_is_written_before_anything_is_deleted",),
    ),
    Mutant(
        "copy in a view taken for the only one by an older hash",
        "                and hashed.hashes_to(layout, view / file.path, file.sha256)\n",
        "",
        (f"{_HELD}::test_a_copy_that_rots_unseen_is_not_taken_for_the_only_one",),
    ),
    Mutant(
        "gc plans before files of a killed install are back",
        "        held.reindex(session.layout)\n        yield\n",
        "        yield\n",
        (f"{_HELD}::test_a_killed_install_beside_gc_keeps_what_it_was_moving",),
    ),
    Mutant(
        "files move into a view before their records",
        "        _write(layout, manifest, mine.values())\n"
        "        for name, file in mine.items():\n"
        "            _rename(layout, name, layout.files / name, place / file.path)\n",
        "        for name, file in mine.items():\n"
        "            _rename(layout, name, layout.files / name, place / file.path)\n"
        "        _write(layout, manifest, mine.values())\n",
        (f"{_HELD}::test_a_record_leads_to_a_file_before_it_moves",),
    ),
    Mutant(
        "chains of deltas without an end",
        "    long = then == DELTA_DEPTH_LIMIT if len(absent) else np.zeros(len(then), bool)\n",
        "    long = np.zeros(len(then), bool)\n",
        ("tests/unit/ops/upkeep/test_retention_after.py::test_chains_of_deltas_stay_short",),
    ),
    Mutant(
        "gc --max-size deletes what rollback returns to",
        '_DISPENSABLE = ("recent", "newest")\n',
        '_DISPENSABLE = ("recent", "newest", "rollback")\n',
        (
            "tests/unit/ops/upkeep/test_gc_policies.py"
            "::test_what_is_installed_pinned_or_behind_a_rollback_stays_above_the_limit",
        ),
    ),
    Mutant(
        "retention deletes incomplete downloads",
        "        policy = replace(GcPolicy.of(retention), keep_incomplete=True)\n",
        "        policy = replace(GcPolicy.of(retention), keep_incomplete=False)\n",
        ("tests/unit/ops/upkeep/test_gc_incomplete.py::test_what_runs_by_itself_leaves_them",),
    ),
    Mutant(
        "chunks of a draft taken without a hash",
        "                verified(id_bytes(self.ids, n), data)\n                return True\n",
        "                return bool(data)\n",
        (
            "tests/faults/test_straight_attacks.py"
            "::test_a_draft_that_changed_costs_what_it_had_and_no_more[flip]",
        ),
    ),
)
