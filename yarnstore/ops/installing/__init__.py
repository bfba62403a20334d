"""Install versions: checkouts, updates, rollbacks, pins, lock files, and updates on a schedule.

    checkout:  eligibility ─▶ fetching ─▶ make_whole (files, view) ─▶ activate ─▶ self_check
    update:    candidates (decide) ─▶ update_plan ─▶ forecast | apply ─▶ as checkout
    rollback:  activate, if the view is complete; else as checkout

`checkout.install` fetches, materialises and activates; only `activate` changes the ref `installed` and the
link.  `update_plan` has the plan that `outdated` and `update` share.  `pin` and `from_lock` limit what is
installed, `auto_update` and `timers` run updates on a schedule.  `registry/decide` chooses the version;
docs/format/refs.md governs the refs.
"""
