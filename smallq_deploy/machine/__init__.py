"""What this machine is: toolkits, devices, driver."""
