"""Which hosts: inventories of our own, Ansible's and Slurm's, limits, names."""
