"""The zoo: networks by name, built from SpikingJelly's layers and neurons."""
