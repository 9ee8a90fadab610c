"""Many hosts: inventory, waves, transports, ledger, reports and exports. The node side is the single-host tool."""
