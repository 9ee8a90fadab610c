"""What carries commands to hosts: pyinfra in a worker process, the ssh program, relays, this machine."""
