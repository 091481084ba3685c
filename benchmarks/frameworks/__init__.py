"""The frameworks of integrations/, where they are installed: each with its own stores and ours.

A module for each makes its sessions, adds to them and reads them as the framework does, whatever
the store; so what is compared differs in nothing but the store.
"""
