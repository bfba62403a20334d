"""Install versions: checkouts, updates, rollbacks, pins, lock files, and updates on a schedule.

    checkout:  eligibility ─▶ fetching ─▶ make_whole (files, view) ─▶ activate ─▶ self_check
    update:    candidates (decide) ─▶ update_plan ─▶ forecast | apply ─▶ as checkout
    rollback:  activate, where the view is whole; else as checkout

`checkout.install` brings, materialises and activates; `activate` alone moves the ref `installed` and the
link.  `update_plan` has the plan that `outdated` and `update` share.  `pin` and `from_lock` limit what is
installed, `auto_update` and `timers` run updates on a schedule.  Which version is wanted is decided in
`registry/decide`; docs/format/refs.md governs the moves.
"""
