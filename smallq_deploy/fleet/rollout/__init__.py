"""A change of many hosts: waves and budgets, the ledger, the controller that performs what they decide."""
