"""What has been on this machine: generations, journal, the switch."""
