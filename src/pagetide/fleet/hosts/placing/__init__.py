"""Policies of placing VMs on hosts, a file each."""
