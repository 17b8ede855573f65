"""What every compressor has to keep to, as checks that run anywhere: ``snnbench check my_package.mine:Method``."""
