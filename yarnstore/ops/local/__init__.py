"""Import, export and remove versions without a registry; take over older installations."""
