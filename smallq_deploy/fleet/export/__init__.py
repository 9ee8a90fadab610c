"""For those who use an engine of their own: files for Ansible, Kubernetes, Slurm, ClusterShell and plain ssh.

Each exporter is a pure function of an :class:`~smallq_deploy.fleet.export.request.ExportRequest` that returns relative
file names with their text; :func:`~smallq_deploy.fleet.export.write.write_export` puts them into a directory.
"""
