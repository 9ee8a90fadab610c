"""The sandbox: a simulated CANN toolkit directory. It uses the base layer only; nothing but the CLI imports it."""
