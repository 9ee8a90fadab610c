"""The one transaction that install, rollback, uninstall, repair and adoption go through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from smallq_deploy.base.errors import InstallError, OpenTransactionError, SmallqError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import FileEntry, entries_digest, fsync_dir, fsync_file, fsync_tree
from smallq_deploy.base.lock import owner_record
from smallq_deploy.store import configini, settle
from smallq_deploy.store import journal as journals
from smallq_deploy.store.change import Change, ChangeReport, Draft, Proof
from smallq_deploy.store.generations import (
    Generation,
    check_manifest,
    load_generation,
    next_number,
    now,
    read_state,
    write_generation,
)
from smallq_deploy.store.journal import Journal, TreeId, write_journal
from smallq_deploy.store.live import differing, live_exists, observe_live, read_tree
from smallq_deploy.store.paths import ABSENT, Store, make_dir
from smallq_deploy.store.recovery import (
    OpenTransaction,
    RecoveryReport,
    open_transaction,
    recover,
    refuse_open,
    session,
)
from smallq_deploy.store.switch import switch, take

__all__ = [
    "Change",
    "ChangeReport",
    "Draft",
    "OpenTransaction",
    "Proof",
    "RecoveryReport",
    "change_live",
    "open_transaction",
    "recover",
    "refuse_open",
    "session",
]


def change_live(store: Store, change: Change, *, events: Events | None = None, method: str = "") -> ChangeReport:
    """Make something else live, prove it, keep it or put the old state back. Call inside :func:`session`.

    Whatever ``change`` raises undoes the transaction and is raised again (an OSError in its typed form); a process that
    dies leaves a journal from which :func:`recover` gets the old or the new state. ``method`` forces one switch method.
    Raises OpenTransactionError UNDO_FAILED when even the undo failed, UNFINISHED when the decision could not be
    completed; recovery does it once the cause is gone.
    """
    return _Transaction(store, change, events or Events(), method).run()


class _Transaction:
    def __init__(self, store: Store, change: Change, events: Events, method: str) -> None:
        self.store, self.change, self.events, self.method = store, change, events, method
        self.area = store.staging(journals.new_txid())
        self.journal: Journal | None = None
        self.generation: Generation | None = None
        self.proof: Proof | None = None
        self.old_digest = ""
        self.named_before = ABSENT  # the generation that the state names, which an undone change leaves
        self.changed_from = 0  # the generation that the directory found was, before somebody edited it

    def run(self) -> ChangeReport:
        try:
            journal = self._begin()
            journal = self._stage(journal)
            journal = self._switch(journal)
            journal = self._prove(journal)
        except BaseException as error:
            self._give_up(error)
            if isinstance(error, OSError):
                raise access_error(error, f"{self.change.action} {self.store.live}") from error
            raise
        # The decision stands in the journal: from here on recovery would come to the same end.
        kept = journal.phase == journals.OK
        finish = settle.keep if kept else settle.undo
        try:
            try:
                finish(self.store, journal)
            except KeyboardInterrupt:
                finish(self.store, journal)  # too late to interrupt; a second Ctrl-C leaves it to recovery
        except (OSError, SmallqError) as error:
            done = f"finish the {self.change.action}"
            cause = error if isinstance(error, SmallqError) else access_error(error, done)
            raise OpenTransactionError(
                "UNFINISHED",
                f"the {'new' if kept else 'old'} state was decided on, but {cause.message}",
                hint="remove the cause, then run `smallq-deploy recover`: it completes this",
                details=cause.details,
            ) from error
        return ChangeReport(
            journal.txid,
            journal.action,
            kept,
            journal.new if kept else self.named_before,
            journal.old,
            self.generation,
            journal.old if kept and journal.adopt else None,
            journal.method,
            self.proof,
            journal.reason,
        )

    def _write(self, journal: Journal) -> Journal:
        self.journal = write_journal(self.store, journal)
        return journal

    def _begin(self) -> Journal:
        """Say what is about to happen, before the first file is made."""
        store, change = self.store, self.change
        live = observe_live(store, deep=change.deep_live)
        self.named_before = read_state(store).of(store.vendor).current or ABSENT
        number = next_number(store)
        adopt = live.kind in ("changed", "unknown")
        old = number if adopt else live.number
        number += 1 if adopt else 0
        new = number if change.stage else change.target
        new_tree = None
        if change.stage is None and new != ABSENT:
            self.generation = load_generation(store, new)
            if store.tree_dir(new).is_dir():
                new_tree = TreeId.of(store.tree_dir(new), self.generation.manifest_digest, store.vendors)
        self.old_digest = live.digest
        if live.kind == "changed" and live.generation is not None:
            self.changed_from = live.generation.number
        return self._write(
            Journal(
                self.area.root.name,
                change.action,
                store.vendor,
                journals.STAGING,
                now(),
                owner_record(),
                old=old,
                new=new,
                adopt=adopt,
                made=change.stage is not None,
                new_tree=new_tree,
                last_number=number if change.stage else number - 1,
                flags={"keep_failed": change.keep_failed},
            )
        )

    def _stage(self, journal: Journal) -> Journal:
        """Everything that takes time happens here, away from the live tree."""
        store, area, change = self.store, self.area, self.change
        make_dir(area.root)
        fsync_dir(area.root.parent)  # before a generation's tree moves in
        if journal.adopt:
            with self.events.step("record the directory found"):
                make_dir(area.adopted)
                entries = read_tree(store.live)
                listed = store.vendor in configini.read_config(store).names
                draft = change.describe(store.live)
                if self.changed_from:
                    draft = replace(draft, flags={**draft.flags, "changed_from": self.changed_from})
                described = _generation(store, journal.old, draft, entries, listed)
                write_generation(area.adopted, described, entries)
                self.old_digest = described.manifest_digest
        new_digest = ""
        flags = dict(journal.flags)
        if change.stage is not None:
            make_dir(area.record)
            draft = change.stage(area)
            entries = _plain_entries(area.tree)
            self.generation = _generation(store, journal.new, draft, entries, change.listed)
            new_digest = self.generation.manifest_digest
            fsync_tree(area.tree)
            if area.package.exists():
                fsync_file(area.package)
            write_generation(area.record, self.generation, entries)
        elif journal.new != ABSENT:
            flags["rebuilt"] = journal.new_tree is None
            new_digest = self._take_generation(journal)
        # Every way to switch syncs area.root before the journal says so; until then nothing there is needed.
        old_tree = new_tree = None
        if journal.old != ABSENT:
            if not live_exists(store):
                raise InstallError(
                    "LIVE_CHANGED",
                    f"{store.live} was removed while the new tree was being prepared",
                    hint="find out who writes to the vendors directory, then run the command again",
                )
            old_tree = TreeId.of(store.live, self.old_digest, store.vendors)
        if journal.new != ABSENT:
            new_tree = TreeId.of(area.tree, new_digest, store.vendors)
        return replace(journal, old_tree=old_tree, new_tree=new_tree, flags=flags)

    def _take_generation(self, journal: Journal) -> str:
        """Bring the tree of an existing generation into staging, proven to be unchanged; its digest."""
        store, area, generation = self.store, self.area, self.generation
        assert generation is not None
        manifest = check_manifest(store, generation)
        if journal.new_tree is not None:
            present = read_tree(store.tree_dir(journal.new), digests=self.change.deep_check)
            differ = differing(manifest, present, contents=self.change.deep_check)
            # Times alone do not matter; contents decide.
            if differ and entries_digest(read_tree(store.tree_dir(journal.new))) != generation.manifest_digest:
                raise _damaged_generation(generation, "was changed in the store")
            take(store.tree_dir(journal.new), area.tree)
            if (
                store.tree_dir(journal.new).exists()
                and entries_digest(read_tree(area.tree)) != generation.manifest_digest
            ):
                raise _damaged_generation(generation, "changed while it was being copied")
            return generation.manifest_digest
        if self.change.rebuild is None:
            raise _damaged_generation(generation, "has no files in the store")
        with self.events.step(f"rebuild generation {generation.number} from its package"):
            self.change.rebuild(area, generation)
            if entries_digest(_plain_entries(area.tree)) != generation.manifest_digest:
                raise _damaged_generation(generation, "could not be rebuilt identically from its package")
            fsync_tree(area.tree)
        return generation.manifest_digest

    def _switch(self, journal: Journal) -> Journal:
        store, change = self.store, self.change
        config = configini.read_config(store)
        after = configini.with_vendor(config, store.vendor, listed=change.listed, first=change.first)
        planned = replace(
            journal, phase=journals.SWITCHING, config=journals.ConfigChange(config.text, after, config.mode)
        )
        with self.events.step("switch"):
            done = switch(
                store, self.area, planned, lambda name: self._write(replace(planned, method=name)), force=self.method
            )
            assert done.config is not None
            configini.apply_change(store, done.config)
            return self._write(replace(done, phase=journals.SWITCHED))

    def _prove(self, journal: Journal) -> Journal:
        """Run the proof and write the decision."""
        proof = self.proof = self.change.prove() if self.change.prove is not None else None
        record = None if proof is None else {**proof.record, "verdict": proof.verdict}
        kept = proof is None or proof.keep
        if journal.made and self.generation is not None:
            failed = "" if kept or proof is None else proof.reason or proof.verdict
            self.generation = replace(self.generation, smoke=record, failed=failed)
            write_generation(self.area.record, self.generation, None)
        if kept:
            return self._write(replace(journal, phase=journals.OK, proof=record))
        assert proof is not None
        return self._write(replace(journal, phase=journals.UNDONE, proof=record, reason=proof.reason or proof.verdict))

    def _give_up(self, error: BaseException) -> None:
        """Put the old state back after an exception before the decision."""
        if self.journal is None:
            return
        if self.journal.phase == journals.OK:
            return  # decided: recovery completes it
        reason = error.message if isinstance(error, SmallqError) else f"{type(error).__name__}: {error}".rstrip(": ")
        try:
            settle.undo(self.store, replace(self.journal, reason=reason))
        except (OSError, SmallqError) as second:
            raise OpenTransactionError(
                "UNDO_FAILED",
                f"the {self.change.action} failed ({reason}) and could not be undone: {second}",
                hint="remove the cause, then run `smallq-deploy recover`",
                details={"cause": reason, "journal": str(self.store.journal)},
            ) from error


def _generation(store: Store, number: int, draft: Draft, entries: tuple[FileEntry, ...], listed: bool) -> Generation:
    return Generation(
        number,
        store.vendor,
        now(),
        draft.origin,
        draft.release,
        draft.package_name,
        draft.package_sha256,
        draft.toolkit_version,
        draft.toolkit_remark,
        draft.ops,
        draft.units,
        draft.arch,
        entries_digest(entries),
        sum(entry.kind == "file" for entry in entries),
        sum(entry.size for entry in entries),
        listed,
        flags=dict(draft.flags),
    )


def _plain_entries(root: Path) -> tuple[FileEntry, ...]:
    entries = read_tree(root)
    odd = [entry.path for entry in entries if entry.kind == "other"]
    if odd:
        raise InstallError("UNSAFE_TREE", f"{odd[0]} is neither file, directory nor link", hint="use another package")
    return entries


def _damaged_generation(generation: Generation, what: str) -> InstallError:
    return InstallError(
        "GENERATION_DAMAGED",
        f"generation {generation.number} {what}",
        hint="nothing was changed; roll back to another one (see `smallq-deploy status`) or install a package",
        details={"generation": generation.number},
    )
