"""The checks of tools/check_server.py, by whose client they are."""
